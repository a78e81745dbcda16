/* device.c - linked into the tests of tests/cuda in the emulator's place: they then run on a real GPU. Without one the
 * program ends before it begins, as skipped. */
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "emulator.h"
#include "ganq/ganq.h"

int emulator_present(void) { return 0; }
void emulator_set_machine(const emulator_machine *machine) { (void)machine; }
void emulator_set_order(int order) { (void)order; }
void emulator_fail_allocation(int64_t n) { (void)n; }
void emulator_fail_call(const char *name, int error) { (void)name, (void)error; }
void emulator_interrupt(const char *name, void (*f)(void *user), void *user) { (void)name, (void)f, (void)user; }
int emulator_contexts(int device) { return (void)device, 0; }
void *emulator_make_context(int device) { return (void)device, NULL; }
void *emulator_current_context(void) { return NULL; }
void emulator_read_counts(emulator_counts *out) { memset(out, 0, sizeof *out); }

/* In a child: the tests fork, and CUDA must not have been touched before. */
__attribute__((constructor)) static void look_for_a_device(void) {
    const pid_t child = fork();
    if (child == 0) {
        const ganq_context_options options = {.struct_size = sizeof options, .device = GANQ_DEVICE_CUDA};
        ganq_context *ctx;
        const ganq_status status = ganq_context_create(&options, &ctx);
        if (status != GANQ_OK)
            fprintf(stderr, "skipped: %s\n", ganq_last_error());
        _exit(status == GANQ_ERR_NO_DEVICE ? 77 : 0);
    }
    int status = 0;
    if (child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 77)
        _exit(77);
}

/* pattern.c - finding a literal or a regular expression, match after match.
 *
 * Tokenizer files write their expressions for Oniguruma; PCRE2 reads the same language but for a
 * few points, which are translated here (\s without U+180E, \w, script names, \u) or refused.
 * Invalid UTF-8 is stepped over: PCRE2 sees the runs of valid text between, so that it never has to
 * check. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string.h>

#include "tokenizer_parts.h"

struct ganq__pattern {
    pcre2_code *code; /* NULL: a literal */
    char *literal;
    size_t literal_size;
};

static ganq_status pattern_create(ganq__pattern **out) {
    *out = ganq__calloc(1, sizeof **out);
    return *out ? GANQ_OK : GANQ_ERR_NO_MEMORY;
}

ganq_status ganq__pattern_literal(const char *text, size_t size, ganq__pattern **out) {
    ganq__pattern *pattern;
    GANQ_TRY(pattern_create(&pattern));
    pattern->literal = ganq__strndup(text, size);
    pattern->literal_size = size;
    if (!pattern->literal) {
        ganq__free(pattern);
        return GANQ_ERR_NO_MEMORY;
    }
    *out = pattern;
    return GANQ_OK;
}

/* ---- Translation ---- */

/* Scripts that tokenizer files name. PCRE2 takes a bare name for the script and its extensions;
 * \p{Han} then has 288 code points more. */
static const char *const scripts[] = {"Han",        "Hiragana", "Katakana", "Hangul", "Latin",
                                      "Greek",      "Cyrillic", "Arabic",   "Hebrew", "Thai",
                                      "Devanagari", "Tamil",    "Bengali"};

static int is_script(const char *name, size_t size) {
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++)
        if (strlen(scripts[i]) == size && memcmp(scripts[i], name, size) == 0)
            return 1;
    return 0;
}

#define PUT(text) GANQ_TRY(ganq__buffer_append(out, (text), strlen(text)))

/* One escape at p ("\x", p[1] is not NUL); *used: characters read. */
static ganq_status translate_escape(const char *p, int in_class, const char *what,
                                    ganq__buffer *out, size_t *used) {
    *used = 2;
    switch (p[1]) {
    case 's':
        PUT("\\p{White_Space}");
        return GANQ_OK;
    case 'S':
        PUT("\\P{White_Space}");
        return GANQ_OK;
    case 'w':
        PUT(in_class ? "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
                     : "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]");
        return GANQ_OK;
    case 'W':
        if (in_class)
            break;
        PUT("[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]");
        return GANQ_OK;
    case 'u':
        if (strspn(p + 2, "0123456789abcdefABCDEF") < 4)
            break;
        *used = 6;
        return ganq__buffer_printf(out, "\\x{%.4s}", p + 2);
    case 'p':
    case 'P': {
        const char *close = p[2] == '{' ? strchr(p, '}') : NULL;
        if (!close)
            break;
        size_t inverted = p[3] == '^';
        const char *name = p + 3 + inverted;
        *used = (size_t)(close - p) + 1;
        return ganq__buffer_printf(out, "\\%c{%s%s%.*s}", p[1], inverted ? "^" : "",
                                   is_script(name, (size_t)(close - name)) ? "sc:" : "",
                                   (int)(close - name), name);
    }
    case 'h': /* hexadecimal digits there, blanks here */
    case 'H':
    case 'C':
    case 'Q':
    case 'E':
        break;
    default:
        return ganq__buffer_append(out, p, 2);
    }
    GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: regular expression with \\%c is not supported", what,
              p[1]);
}

static ganq_status translate(const char *p, const char *what, ganq__buffer *out) {
    int in_class = 0;
    for (size_t used; *p; p += used) {
        used = 1;
        if (*p == '\\' && p[1]) {
            GANQ_TRY(translate_escape(p, in_class, what, out, &used));
            continue;
        }
        if (in_class && *p == '[') {
            const char *close = p[1] == ':' ? strstr(p, ":]") : NULL;
            if (!close)
                GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: regular expression with a class in a class",
                          what);
            used = (size_t)(close - p) + 2;
        } else if (in_class && p[0] == '&' && p[1] == '&') {
            GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: regular expression with && in a class", what);
        } else if (in_class) {
            in_class = *p != ']';
        } else if (*p == '[') {
            in_class = 1;
            used += p[1] == '^';
        } else if (p[0] == '(' && p[1] == '*') {
            GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: regular expression with (*", what);
        } else if (p[0] == '(' && p[1] == '?') {
            size_t flags = strspn(p + 2, "imx-"); /* m: the dot matches a newline, too */
            GANQ_TRY(ganq__buffer_append(out, p, 2));
            for (size_t i = 0; i < flags; i++)
                GANQ_TRY(ganq__buffer_append(out, p[2 + i] == 'm' ? "s" : p + 2 + i, 1));
            used = 2 + flags;
            continue;
        }
        GANQ_TRY(ganq__buffer_append(out, p, used));
    }
    return GANQ_OK;
}

static ganq_status compile(const char *regex, const char *what, pcre2_code **out) {
    ganq__buffer text = {0};
    int error;
    PCRE2_SIZE offset;
    pcre2_code *code = NULL;
    ganq_status status = translate(regex, what, &text);
    if (status == GANQ_OK)
        /* MULTILINE: ^ and $ stand at every line there. */
        code = pcre2_compile((PCRE2_SPTR)(text.size ? text.data : ""), text.size,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &error, &offset, NULL);
    if (status == GANQ_OK && !code) {
        PCRE2_UCHAR words[128];
        pcre2_get_error_message(error, words, sizeof words);
        status = error == PCRE2_ERROR_NOMEMORY ? GANQ_ERR_NO_MEMORY : GANQ_ERR_UNSUPPORTED;
        ganq__fail("%s: regular expression \"%.200s\": %s", what, regex, (char *)words);
    }
    ganq__buffer_free(&text);
    *out = code;
    return status;
}

ganq_status ganq__pattern_regex(const char *regex, const char *what, ganq__pattern **out) {
    ganq__pattern *pattern;
    GANQ_TRY(pattern_create(&pattern));
    ganq_status status = compile(regex, what, &pattern->code);
    if (status != GANQ_OK) {
        ganq__free(pattern);
        return status;
    }
    /* Where the system forbids executable memory this fails and matching is interpreted, three
     * times slower. */
    (void)pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE);
    *out = pattern;
    return GANQ_OK;
}

void ganq__pattern_free(ganq__pattern *pattern) {
    if (!pattern)
        return;
    pcre2_code_free(pattern->code);
    ganq__free(pattern->literal);
    ganq__free(pattern);
}

/* ---- Searching ---- */

ganq_status ganq__matcher_create(ganq__matcher *matcher) {
    matcher->data = pcre2_match_data_create(1, NULL);
    matcher->context = pcre2_match_context_create(NULL);
    if (!matcher->data || !matcher->context) {
        ganq__matcher_free(matcher);
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, "out of memory for matching");
    }
    pcre2_set_heap_limit(matcher->context, 256 * 1024); /* KiB */
    return GANQ_OK;
}

void ganq__matcher_free(ganq__matcher *matcher) {
    pcre2_match_data_free(matcher->data);
    pcre2_match_context_free(matcher->context);
    *matcher = (ganq__matcher){0};
}

void ganq__search_start(ganq__search *search, const char *text, size_t size) {
    *search = (ganq__search){.text = text, .size = size, .last_end = SIZE_MAX};
}

/* The next match in text[from, valid_end), which is valid UTF-8, or *found = 0. */
static ganq_status find_in_run(const ganq__pattern *pattern, ganq__matcher *matcher,
                               ganq__search *search, int *found) {
    const PCRE2_SPTR run = (PCRE2_SPTR)search->text + search->valid_begin;
    const size_t size = search->valid_end - search->valid_begin,
                 from = search->from - search->valid_begin;
    int rc = pcre2_match(pattern->code, run, size, from, PCRE2_NO_UTF_CHECK, matcher->data,
                         matcher->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(pattern->code, run, size, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         matcher->data, matcher->context);
    *found = rc >= 0;
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH)
        return GANQ_OK;
    if (rc == PCRE2_ERROR_NOMEMORY)
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, "out of memory for matching");
    PCRE2_UCHAR words[128];
    pcre2_get_error_message(rc, words, sizeof words);
    GANQ_FAIL(
        GANQ_ERR_UNSUPPORTED,
        "the tokenizer's regular expression needs too many steps on this text (%s, at byte %zu)",
        (char *)words, search->from);
}

/* Finds the run of valid text that holds or follows `from`; 0 at the end. */
static int next_run(ganq__matcher *matcher, ganq__search *search) {
    size_t begin = search->from;
    while (begin < search->size) {
        size_t length = ganq__utf8_valid(search->text + begin, search->size - begin);
        if (length) {
            search->from = search->valid_begin = begin;
            search->valid_end = begin + length;
            /* A run of white space is walked back once; what needs much more than that is
             * exponential. */
            uint64_t steps = 1000000 + 4 * (uint64_t)length;
            pcre2_set_match_limit(matcher->context,
                                  steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
            return 1;
        }
        begin++;
    }
    search->from = search->size;
    return 0;
}

static size_t step(const ganq__search *search, size_t at) {
    int32_t cp;
    size_t length =
        at < search->size ? ganq__utf8_next(search->text + at, search->size - at, &cp) : 0;
    return length ? length : 1;
}

ganq_status ganq__search_next(const ganq__pattern *pattern, ganq__matcher *matcher,
                              ganq__search *search, size_t *begin, size_t *end, int *found) {
    *found = 0;
    if (!pattern->code) {
        const char *at = search->from >= search->size || pattern->literal_size == 0
                             ? NULL
                             : memmem(search->text + search->from, search->size - search->from,
                                      pattern->literal, pattern->literal_size);
        if (at) {
            *begin = (size_t)(at - search->text);
            *end = search->from = *begin + pattern->literal_size;
            *found = 1;
        }
        return GANQ_OK;
    }
    for (;;) {
        if (search->from >= search->valid_end && !next_run(matcher, search))
            return GANQ_OK;
        GANQ_TRY(find_in_run(pattern, matcher, search, found));
        if (!*found) {
            search->from = search->valid_end;
            continue;
        }
        const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(matcher->data);
        /* \K can put the beginning behind the end, or into what was matched before. */
        *end = search->valid_begin + bounds[1];
        *begin = bounds[0] <= bounds[1] ? search->valid_begin + bounds[0] : *end;
        if (*begin < search->from)
            *begin = search->from;
        int empty = *begin == *end;
        search->from = empty ? *end + step(search, *end) : *end;
        if (empty && (*end == search->last_end || *end == search->size))
            continue;
        search->last_end = *end;
        return GANQ_OK;
    }
}

/* tokenizer.c - the tokenizer object: which file is read how, what the configs beside it say, and
 * the vocabulary seen from outside. */
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "json.h"
#include "tokenizer_parts.h"

/* Tokenizer files are tens of megabytes at most. */
static const uint64_t MAX_FILE = (uint64_t)1 << 30;

/* ---- The vocabulary, seen from outside ---- */

int32_t ganq__tokenizer_vocab_size(const ganq_tokenizer *tokenizer) {
    return tokenizer->vocab.size;
}
int32_t ganq__tokenizer_bos(const ganq_tokenizer *tokenizer) {
    return tokenizer->bos;
}
int32_t ganq__tokenizer_eos(const ganq_tokenizer *tokenizer) {
    return tokenizer->eos;
}

const char *ganq__tokenizer_piece(const ganq_tokenizer *tokenizer, int32_t id) {
    return id >= 0 && id < tokenizer->vocab.size ? tokenizer->vocab.tokens[id].piece : NULL;
}

int32_t ganq__tokenizer_id(const ganq_tokenizer *tokenizer, const char *piece) {
    return ganq__vocab_find(&tokenizer->vocab, piece, strlen(piece));
}

/* ---- Files beside the tokenizer's ---- */

static ganq_status load_beside(const char *dir, const char *name, json_t **json, char **path) {
    *path = ganq__path_join(dir, name);
    if (!*path)
        return GANQ_ERR_NO_MEMORY;
    if (!ganq__path_exists(*path))
        return GANQ_OK;
    GANQ_TRY(ganq__json_load(*path, json));
    if (!json_is_object(*json))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: expected an object", *path);
    return GANQ_OK;
}

static ganq_status open_beside(const char *dir, ganq__beside *beside) {
    GANQ_TRY(
        load_beside(dir, "tokenizer_config.json", &beside->tokenizer, &beside->tokenizer_path));
    GANQ_TRY(
        load_beside(dir, "generation_config.json", &beside->generation, &beside->generation_path));
    return load_beside(dir, "config.json", &beside->model, &beside->model_path);
}

static void close_beside(ganq__beside *beside) {
    json_decref(beside->tokenizer);
    json_decref(beside->generation);
    json_decref(beside->model);
    ganq__free(beside->tokenizer_path);
    ganq__free(beside->generation_path);
    ganq__free(beside->model_path);
}

ganq__family ganq__beside_family(const ganq__beside *beside) {
    const char *name = json_string_value(json_object_get(beside->tokenizer, "tokenizer_class"));
    const char *type = json_string_value(json_object_get(beside->model, "model_type"));
    name = name ? name : "";
    type = type ? type : "";
    if (strncmp(name, "Qwen2", 5) == 0)
        return GANQ__FAMILY_QWEN2;
    if (strcmp(type, "opt") == 0) /* its class is GPT2Tokenizer */
        return GANQ__FAMILY_OPT;
    if (strncmp(name, "GPT2", 4) == 0)
        return GANQ__FAMILY_GPT2;
    if (strncmp(type, "qwen2", 5) == 0 || strncmp(type, "qwen3", 5) == 0)
        return GANQ__FAMILY_QWEN2;
    if (strcmp(type, "llama") == 0)
        return GANQ__FAMILY_LLAMA3;
    return strncmp(type, "gpt", 3) == 0 ? GANQ__FAMILY_GPT2 : GANQ__FAMILY_UNKNOWN;
}

int ganq__beside_adds_bos(const ganq__beside *beside, int otherwise) {
    const json_t *value = json_object_get(beside->tokenizer, "add_bos_token");
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

ganq_status ganq__beside_added(const ganq__beside *beside, ganq_tokenizer *tokenizer) {
    json_t *list = json_object_get(beside->tokenizer, "added_tokens_decoder"), *object;
    const char *key, *what = beside->tokenizer_path;
    if (!list)
        return GANQ_OK;
    if (!json_is_object(list))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"added_tokens_decoder\": expected an object", what);
    json_object_foreach(list, key, object) {
        char *end;
        long long id = strtoll(key, &end, 10);
        if (*key == 0 || *end != 0)
            GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"added_tokens_decoder\": \"%.40s\" is not an id", what,
                      key);
        GANQ_TRY(ganq__tokenizer_add_json(tokenizer, id, object, what));
    }
    return GANQ_OK;
}

/* "bos_token" of tokenizer_config.json: a piece, or an object with its content, or null for none.
 * *found = 1 if it says anything this vocabulary knows. */
static void id_from_tokenizer_config(const ganq__beside *beside, const ganq_tokenizer *t,
                                     const char *key, int32_t *id, int *found) {
    json_t *value = json_object_get(beside->tokenizer, key);
    if (json_is_object(value))
        value = json_object_get(value, "content");
    *found = json_is_null(value);
    if (*found)
        *id = -1;
    if (!json_is_string(value))
        return;
    int32_t named =
        ganq__vocab_find(&t->vocab, json_string_value(value), json_string_length(value));
    if (named >= 0) {
        *id = named;
        *found = 1;
    }
}

/* "bos_token_id": a number or a list of them, of which the first counts; -1 if there is none. */
static int32_t id_from_config(const json_t *config, const ganq_tokenizer *t, const char *key) {
    const json_t *value = json_object_get(config, key);
    if (json_is_array(value))
        value = json_array_get(value, 0);
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    return id >= 0 && id < t->vocab.size && t->vocab.tokens[id].piece ? (int32_t)id : -1;
}

/* BOS and EOS: tokenizer_config.json has the last word, then what the file itself says, then the
 * two configs. What is put in front of a text is the rule of tokenizer.json alone, as in the
 * `transformers` package; files that have no such rule begin with BOS or do not. */
static void settle_ends(const ganq__beside *beside, ganq_tokenizer *t) {
    int found;
    id_from_tokenizer_config(beside, t, "bos_token", &t->bos, &found);
    if (!found && t->bos < 0)
        t->bos = id_from_config(beside->generation, t, "bos_token_id");
    if (!found && t->bos < 0)
        t->bos = id_from_config(beside->model, t, "bos_token_id");
    id_from_tokenizer_config(beside, t, "eos_token", &t->eos, &found);
    if (t->eos < 0)
        t->eos = id_from_config(beside->generation, t, "eos_token_id");
    if (t->eos < 0)
        t->eos = id_from_config(beside->model, t, "eos_token_id");
    if (t->adds_bos)
        t->prefix = t->bos;
}

/* ---- Loading ---- */

static int ends_with(const char *path, const char *end) {
    size_t n = strlen(path), m = strlen(end);
    return n >= m && strcmp(path + n - m, end) == 0;
}

static ganq_status read_json_file(const char *dir, const char *data, size_t size,
                                  const ganq__beside *beside, ganq_tokenizer *t) {
    json_t *root = NULL;
    GANQ_TRY(ganq__json_parse(data, size, t->path, &root));
    ganq_status status;
    char *merges = NULL;
    if (json_is_object(json_object_get(root, "model"))) {
        status = ganq__tokenizer_read_json(root, t);
    } else if (!(merges = ganq__path_join(dir, "merges.txt"))) {
        status = GANQ_ERR_NO_MEMORY;
    } else {
        status = ganq__tokenizer_read_vocab(root, merges, beside, t);
    }
    ganq__free(merges);
    json_decref(root);
    return status;
}

static ganq_status read_file(const char *dir, const char *data, size_t size,
                             const ganq__beside *beside, ganq_tokenizer *t) {
    if (size == 0)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: the file is empty", t->path);
    if (ends_with(t->path, ".json") || data[0] == '{')
        return read_json_file(dir, data, size, beside, t);
    if (data[0] == 0x0a) /* field 1, a message: the first piece */
        return ganq__tokenizer_read_spm(data, size, beside, t);
    return ganq__tokenizer_read_tiktoken(data, size, beside, t);
}

/* path: a file. */
static ganq_status load_file(const char *path, ganq_tokenizer *t) {
    const char *slash = strrchr(path, '/');
    char *dir = slash ? ganq__strndup(path, slash == path ? 1 : (size_t)(slash - path))
                      : ganq__strdup("."),
         *data = NULL;
    size_t size = 0;
    ganq__beside beside = {0};
    ganq_status status = dir ? GANQ_OK : GANQ_ERR_NO_MEMORY;
    if (status == GANQ_OK && ends_with(path, "merges.txt"))
        t->path = ganq__path_join(dir, "vocab.json");
    else if (status == GANQ_OK)
        t->path = ganq__strdup(path);
    if (status == GANQ_OK && !t->path)
        status = GANQ_ERR_NO_MEMORY;
    if (status == GANQ_OK)
        status = ganq__file_read(t->path, MAX_FILE, &data, &size);
    if (status == GANQ_OK)
        status = open_beside(dir, &beside);
    if (status == GANQ_OK)
        status = read_file(dir, data, size, &beside, t);
    if (status == GANQ_OK)
        status = ganq__tokenizer_finish(t);
    if (status == GANQ_OK)
        settle_ends(&beside, t);
    close_beside(&beside);
    ganq__free(data);
    ganq__free(dir);
    return status;
}

static ganq_status load_dir(const char *dir, ganq_tokenizer *t) {
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "vocab.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = ganq__path_join(dir, names[i]);
        if (!path)
            return GANQ_ERR_NO_MEMORY;
        int exists = ganq__path_exists(path);
        ganq_status status = exists ? load_file(path, t) : GANQ_OK;
        ganq__free(path);
        if (exists)
            return status;
    }
    GANQ_FAIL(GANQ_ERR_NOT_FOUND, "%s: no tokenizer.json, tokenizer.model or vocab.json", dir);
}

ganq_status ganq__tokenizer_load(const char *path, ganq_tokenizer **out) {
    ganq_tokenizer *t = ganq__calloc(1, sizeof *t);
    if (!t)
        return GANQ_ERR_NO_MEMORY;
    atomic_init(&t->references, 1);
    t->unk = t->bos = t->eos = t->prefix = -1;
    ganq_status status = ganq__path_is_dir(path) ? load_dir(path, t) : load_file(path, t);
    if (status != GANQ_OK) {
        ganq__tokenizer_free(t);
        return status;
    }
    *out = t;
    return GANQ_OK;
}

void ganq__tokenizer_free(ganq_tokenizer *tokenizer) {
    if (!tokenizer || atomic_fetch_sub(&tokenizer->references, 1) > 1)
        return;
    ganq__free(tokenizer->path);
    ganq__vocab_free(&tokenizer->vocab);
    ganq__bpe_free(&tokenizer->bpe);
    ganq__norms_free(&tokenizer->norms);
    ganq__splits_free(&tokenizer->splits);
    ganq__free(tokenizer->added);
    ganq__free(tokenizer->raw_set.items);
    ganq__free(tokenizer->normalized_set.items);
    ganq__free(tokenizer);
}

/* test_config.c - config.json: what is read, what is refused and in which words. */
#include <jansson.h>
#include <math.h>

#include "check_util.h"
#include "config.h"
#include "tiny.h"

static char dir[300];
static ganq_context *ctx;

static void setup(void) {
    snprintf(dir, sizeof dir, "%s", test_dir());
    ctx = test_context(1, NULL);
}
static void teardown(void) {
    ganq__remove_tree(dir);
    ganq__context_release(ctx);
}

static void write_file(const char *name, const char *text) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ck_ganq_ok(ganq__file_write(path, text, strlen(text)));
}

/* The default configuration with `key` set to the JSON text `value`; NULL: removed. */
static void write_edited(const char *architecture, const char *key, const char *value) {
    char text[2048];
    tiny t = tiny_default();
    if (architecture)
        t.architecture = architecture;
    tiny_config(&t, text, sizeof text);
    json_t *root = json_loads(text, 0, NULL);
    ck_assert_ptr_nonnull(root);
    if (key && value) {
        json_t *parsed = json_loads(value, JSON_DECODE_ANY, NULL);
        ck_assert_msg(parsed != NULL, "%s", value);
        json_object_set_new(root, key, parsed);
    } else if (key) {
        json_object_del(root, key);
    }
    char *edited = json_dumps(root, 0);
    write_file("config.json", edited);
    free(edited);
    json_decref(root);
}

START_TEST(fields_and_defaults) {
    ganq__config c;
    write_edited(NULL, NULL, NULL);
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_str_eq(c.family->architecture, "LlamaForCausalLM");
    ck_assert_int_eq(c.hidden, 20);
    ck_assert_int_eq(c.intermediate, 27);
    ck_assert_int_eq(c.layers, 2);
    ck_assert_int_eq(c.heads, 4);
    ck_assert_int_eq(c.kv_heads, 2);
    ck_assert_int_eq(c.head_dim, 6);
    ck_assert_int_eq(c.vocab, 33);
    ck_assert_int_eq(c.max_positions, 96);
    ck_assert_double_eq(c.rope_theta, 100);
    ck_assert_double_eq(c.norm_eps, 1e-5);
    ck_assert_int_eq(c.bos, 1);
    ck_assert_int_eq(c.eos_count, 1);
    ck_assert_int_eq(c.eos[0], 2);
    ck_assert_int_eq(c.rope_kind, GANQ__ROPE_PLAIN);
    ck_assert_ptr_null(c.quantized);
    int64_t N, K;
    ganq__config_linear_shape(&c, GANQ__ROLE_K, &N, &K);
    ck_assert_int_eq(N, 12);
    ck_assert_int_eq(K, 20);
    ganq__config_linear_shape(&c, GANQ__ROLE_DOWN, &N, &K);
    ck_assert_int_eq(N, 20);
    ck_assert_int_eq(K, 27);
    ganq__config_free(&c);

    write_edited(NULL, "num_key_value_heads", NULL);
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_int_eq(c.kv_heads, 4);
    ganq__config_free(&c);
    write_edited(NULL, "head_dim", NULL);
    ck_ganq_fails(ganq__config_load(ctx, dir, &c), GANQ_ERR_FORMAT, "even"); /* 20 / 4 */
    write_edited(NULL, "rope_theta", NULL);
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_double_eq(c.rope_theta, 10000);
    ganq__config_free(&c);
}
END_TEST

START_TEST(biases_by_family) {
    static const struct {
        const char *architecture, *key;
        int q, o, mlp, qk_norm;
    } cases[] = {
        {"LlamaForCausalLM", NULL, 0, 0, 0, 0},
        {"LlamaForCausalLM", "attention_bias", 1, 1, 0, 0},
        {"LlamaForCausalLM", "mlp_bias", 0, 0, 1, 0},
        {"MistralForCausalLM", "attention_bias", 0, 0, 0, 0},
        {"Qwen2ForCausalLM", NULL, 1, 0, 0, 0},
        {"Qwen3ForCausalLM", NULL, 0, 0, 0, 1},
        {"Qwen3ForCausalLM", "attention_bias", 1, 1, 0, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ganq__config c;
        write_edited(cases[i].architecture, cases[i].key, "true");
        ck_ganq_ok(ganq__config_load(ctx, dir, &c));
        ck_assert_int_eq(ganq__config_linear_has_bias(&c, GANQ__ROLE_Q), cases[i].q);
        ck_assert_int_eq(ganq__config_linear_has_bias(&c, GANQ__ROLE_V), cases[i].q);
        ck_assert_int_eq(ganq__config_linear_has_bias(&c, GANQ__ROLE_O), cases[i].o);
        ck_assert_int_eq(ganq__config_linear_has_bias(&c, GANQ__ROLE_DOWN), cases[i].mlp);
        ck_assert_int_eq(c.family->qk_norm, cases[i].qk_norm);
        ganq__config_free(&c);
    }
}
END_TEST

START_TEST(rope_settings) {
    ganq__config c;
    write_edited(NULL, "rope_scaling", "{\"type\": \"linear\", \"factor\": 4}");
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_int_eq(c.rope_kind, GANQ__ROPE_LINEAR);
    ck_assert_double_eq(c.rope_factor, 4);
    ganq__config_free(&c);

    write_edited(NULL, "rope_scaling",
                 "{\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0,"
                 " \"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192}");
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_int_eq(c.rope_kind, GANQ__ROPE_LLAMA3);
    ck_assert_double_eq(c.rope_original_positions, 8192);
    ganq__config_free(&c);

    write_edited(NULL, "rope_parameters", "{\"rope_type\": \"default\", \"rope_theta\": 5e5}");
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_int_eq(c.rope_kind, GANQ__ROPE_PLAIN);
    ck_assert_double_eq(c.rope_theta, 5e5);
    ganq__config_free(&c);

    /* factor, attention and context: given, or worked out */
    static const struct {
        const char *text;
        double factor, attention;
        int positions;
    } yarns[] = {
        {"{\"type\": \"yarn\", \"factor\": 4.0, \"original_max_position_embeddings\": 64}", 4, 1.138629436111989, 256},
        {"{\"rope_type\": \"yarn\", \"factor\": 4.0}", 4, 1.138629436111989, 384},
        {"{\"rope_type\": \"yarn\", \"factor\": null, \"original_max_position_embeddings\": 24}", 4, 1.138629436111989, 96},
        {"{\"rope_type\": \"yarn\", \"factor\": 10, \"mscale\": 0.7, \"mscale_all_dim\": 1.3}", 10, 0.8936725381442113, 960},
        {"{\"rope_type\": \"yarn\", \"factor\": 10, \"attention_factor\": 1.25, \"original_max_position_embeddings\": 4}", 10,
         1.25, 96}};
    for (size_t i = 0; i < sizeof yarns / sizeof *yarns; i++) {
        write_edited(NULL, "rope_scaling", yarns[i].text);
        ck_ganq_ok(ganq__config_load(ctx, dir, &c));
        ck_assert_int_eq(c.rope_kind, GANQ__ROPE_YARN);
        ck_assert_double_eq(c.rope_factor, yarns[i].factor);
        ck_assert_double_eq_tol(c.rope_attention, yarns[i].attention, 1e-12);
        ck_assert_int_eq(c.max_positions, yarns[i].positions);
        ganq__config_free(&c);
    }
    write_edited(NULL, "rope_scaling", "{\"type\": \"dynamic\", \"factor\": 2.0}");
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_int_eq(c.rope_kind, GANQ__ROPE_PLAIN);
    ganq__config_free(&c);
}
END_TEST

START_TEST(windows_by_family) {
    ganq__config c;
    write_edited("MistralForCausalLM", "sliding_window", "16");
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_int_eq(c.windows[0], 16);
    ck_assert_int_eq(c.windows[1], 16);
    ganq__config_free(&c);

    write_edited("MistralForCausalLM", "sliding_window", "4096"); /* beyond the positions */
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_ptr_null(c.windows);
    ganq__config_free(&c);

    write_edited("LlamaForCausalLM", "sliding_window", "16");
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_ptr_null(c.windows);
    ganq__config_free(&c);

    /* not there: the family's default; null: none */
    write_edited("MistralForCausalLM", "max_position_embeddings", "8192");
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_int_eq(c.windows[1], 4096);
    ganq__config_free(&c);
    tiny long_one = tiny_default();
    char text[2048];
    long_one.architecture = "MistralForCausalLM";
    long_one.positions = 8192;
    long_one.extra = ", \"sliding_window\": null";
    tiny_config(&long_one, text, sizeof text);
    write_file("config.json", text);
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_ptr_null(c.windows);
    ganq__config_free(&c);

    tiny t = tiny_default();
    t.architecture = "Qwen2ForCausalLM";
    t.window = 16;
    t.extra = "";
    tiny_config(&t, text, sizeof text);
    write_file("config.json", text);
    ck_ganq_ok(ganq__config_load(ctx, dir, &c)); /* use_sliding_window is false */
    ck_assert_ptr_null(c.windows);
    ganq__config_free(&c);
    t.extra = ", \"use_sliding_window\": true, \"max_window_layers\": 1";
    tiny_config(&t, text, sizeof text);
    write_file("config.json", text);
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_int_eq(c.windows[0], 0);
    ck_assert_int_eq(c.windows[1], 16);
    ganq__config_free(&c);
    t.extra = ", \"use_sliding_window\": true, \"layer_types\": [\"sliding_attention\", "
              "\"full_attention\"]";
    tiny_config(&t, text, sizeof text);
    write_file("config.json", text);
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_int_eq(c.windows[0], 16);
    ck_assert_int_eq(c.windows[1], 0);
    ganq__config_free(&c);
    t.extra = ", \"use_sliding_window\": true, \"layer_types\": [\"sliding_attention\"]";
    tiny_config(&t, text, sizeof text);
    write_file("config.json", text);
    ck_ganq_fails(ganq__config_load(ctx, dir, &c), GANQ_ERR_FORMAT, "layer_types");
    t.extra = ", \"use_sliding_window\": true, \"layer_types\": [\"chunked_attention\", "
              "\"full_attention\"]";
    tiny_config(&t, text, sizeof text);
    write_file("config.json", text);
    ck_ganq_fails(ganq__config_load(ctx, dir, &c), GANQ_ERR_UNSUPPORTED, "chunked_attention");
}
END_TEST

START_TEST(opt_settings) {
    static const struct {
        const char *key, *value, *words;
    } bad[] = {{"do_layer_norm_before", "false", "do_layer_norm_before"},
               {"word_embed_proj_dim", "12", "word_embed_proj_dim"},
               {"_remove_final_layer_norm", "true", "_remove_final_layer_norm"},
               {"layer_norm_elementwise_affine", "false", "layer_norm_elementwise_affine"},
               {"activation_function", "\"gelu\"", "gelu"}};
    ganq__config c;
    char text[2048];
    tiny t = tiny_opt();
    tiny_config(&t, text, sizeof text);
    write_file("config.json", text);
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_int_eq(c.tied, 1);
    ck_assert_int_eq(c.intermediate, 27);
    ck_assert_int_eq(c.kv_heads, c.heads);
    ck_assert_int_eq(c.head_dim, 6);
    ck_assert_double_eq(c.norm_eps, 1e-5);
    ck_assert_int_eq(ganq__config_roles(&c), 6);
    for (int j = 0; j < 6; j++)
        ck_assert_int_eq(ganq__config_role_place(&c, ganq__config_role(&c, j)), j);
    ck_assert_int_eq(ganq__config_role(&c, 4), GANQ__ROLE_UP);
    ck_assert_int_eq(ganq__config_role_place(&c, GANQ__ROLE_GATE), -1);
    ganq__config_free(&c);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *root = json_loads(text, 0, NULL);
        ck_assert_int_eq(json_object_set_new(root, bad[i].key, json_loads(bad[i].value, JSON_DECODE_ANY, NULL)), 0);
        char *edited = json_dumps(root, 0);
        write_file("config.json", edited);
        ck_ganq_fails(ganq__config_load(ctx, dir, &c), GANQ_ERR_UNSUPPORTED, bad[i].words);
        free(edited);
        json_decref(root);
    }
}
END_TEST

START_TEST(head_dim_by_family) {
    ganq__config c;
    write_edited("Qwen3ForCausalLM", "head_dim", NULL);
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_int_eq(c.head_dim, 128);
    ganq__config_free(&c);
    write_edited("LlamaForCausalLM", "head_dim", NULL);
    ck_ganq_fails(ganq__config_load(ctx, dir, &c), GANQ_ERR_FORMAT, "head_dim"); /* 20 / 4 is odd */
}
END_TEST

START_TEST(token_ids) {
    ganq__config c;
    write_edited(NULL, "eos_token_id", "[3, 4, 99, -1]"); /* 99 is outside, -1 is none */
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_int_eq(c.eos_count, 2);
    ck_assert_int_eq(c.eos[0], 3);
    ck_assert_int_eq(c.eos[1], 4);
    ganq__config_free(&c);

    write_edited(NULL, "bos_token_id", "null");
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_int_eq(c.bos, -1);
    ganq__config_free(&c);

    write_file("generation_config.json", "{\"bos_token_id\": 7, \"eos_token_id\": [8, 9]}");
    ck_ganq_ok(ganq__config_load(ctx, dir, &c));
    ck_assert_int_eq(c.bos, 7);
    ck_assert_int_eq(c.eos_count, 2);
    ck_assert_int_eq(c.eos[1], 9);
    ganq__config_free(&c);

    write_file("generation_config.json", "{\"eos_token_id\": \"x\"}");
    ck_ganq_fails(ganq__config_load(ctx, dir, &c), GANQ_ERR_FORMAT, "generation_config.json");
    write_file("generation_config.json", "[1]");
    ck_ganq_fails(ganq__config_load(ctx, dir, &c), GANQ_ERR_FORMAT, "generation_config.json");
}
END_TEST

static const struct bad {
    const char *key, *value; /* NULL: removed */
    ganq_status status;
    const char *word;
} bad[] = {
    {"architectures", NULL, GANQ_ERR_FORMAT, "\"architectures\" is missing"},
    {"architectures", "[]", GANQ_ERR_FORMAT, "architectures"},
    {"architectures", "\"LlamaForCausalLM\"", GANQ_ERR_FORMAT, "architectures"},
    {"architectures", "[\"BertModel\"]", GANQ_ERR_UNSUPPORTED, "BertModel"},
    {"architectures", "[\"BertModel\"]", GANQ_ERR_UNSUPPORTED, "Qwen3ForCausalLM"},
    {"hidden_size", NULL, GANQ_ERR_FORMAT, "\"hidden_size\" is missing"},
    {"hidden_size", "null", GANQ_ERR_FORMAT, "hidden_size"},
    {"hidden_size", "\"20\"", GANQ_ERR_FORMAT, "hidden_size"},
    {"hidden_size", "20.5", GANQ_ERR_FORMAT, "hidden_size"},
    {"hidden_size", "0", GANQ_ERR_FORMAT, "hidden_size"},
    {"hidden_size", "-20", GANQ_ERR_FORMAT, "hidden_size"},
    {"hidden_size", "1099511627776", GANQ_ERR_FORMAT, "found 1099511627776"},
    {"intermediate_size", NULL, GANQ_ERR_FORMAT, "intermediate_size"},
    {"intermediate_size", "9223372036854775807", GANQ_ERR_FORMAT, "intermediate_size"},
    {"num_hidden_layers", NULL, GANQ_ERR_FORMAT, "num_hidden_layers"},
    {"num_hidden_layers", "1000000000", GANQ_ERR_FORMAT, "num_hidden_layers"},
    {"num_attention_heads", "0", GANQ_ERR_FORMAT, "num_attention_heads"},
    {"num_key_value_heads", "3", GANQ_ERR_FORMAT, "divisor"},
    {"num_key_value_heads", "8", GANQ_ERR_FORMAT, "num_key_value_heads"},
    {"head_dim", "5", GANQ_ERR_FORMAT, "even"},
    {"head_dim", "100000000", GANQ_ERR_FORMAT, "head_dim"},
    {"vocab_size", "true", GANQ_ERR_FORMAT, "vocab_size"},
    {"vocab_size", "1000000000000", GANQ_ERR_FORMAT, "vocab_size"},
    {"max_position_embeddings", NULL, GANQ_ERR_FORMAT, "max_position_embeddings"},
    {"rms_norm_eps", "-1e-5", GANQ_ERR_FORMAT, "rms_norm_eps"},
    {"rms_norm_eps", "\"small\"", GANQ_ERR_FORMAT, "rms_norm_eps"},
    {"rope_theta", "0", GANQ_ERR_FORMAT, "rope_theta"},
    {"hidden_act", "\"gelu\"", GANQ_ERR_UNSUPPORTED, "gelu"},
    {"tie_word_embeddings", "1", GANQ_ERR_FORMAT, "tie_word_embeddings"},
    {"partial_rotary_factor", "0.5", GANQ_ERR_UNSUPPORTED, "partial_rotary_factor"},
    {"rope_scaling", "3", GANQ_ERR_FORMAT, "rope_scaling"},
    {"rope_scaling", "{\"type\": \"longrope\", \"factor\": 4}", GANQ_ERR_UNSUPPORTED, "longrope"},
    {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 0}", GANQ_ERR_FORMAT, "factor"},
    {"rope_scaling", "{\"type\": \"yarn\", \"beta_fast\": -1}", GANQ_ERR_FORMAT, "beta_fast"},
    {"rope_scaling", "{\"type\": \"linear\"}", GANQ_ERR_FORMAT, "factor"},
    {"rope_scaling", "{\"type\": \"linear\", \"factor\": 0}", GANQ_ERR_FORMAT, "factor"},
    {"rope_scaling", "{\"type\": \"llama3\", \"factor\": 8}", GANQ_ERR_FORMAT, "low_freq_factor"},
    {"rope_scaling",
     "{\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 4}",
     GANQ_ERR_FORMAT, "high_freq_factor"},
    {"rope_parameters", "{\"full_attention\": {}}", GANQ_ERR_UNSUPPORTED, "per layer type"},
    {"bos_token_id", "[1]", GANQ_ERR_FORMAT, "bos_token_id"},
    {"eos_token_id", "[1, \"x\"]", GANQ_ERR_FORMAT, "eos_token_id"},
    {"quantization_config", "{\"quant_method\": \"gptq\"}", GANQ_ERR_UNSUPPORTED, "gptq"},
    {"quantization_config", "{}", GANQ_ERR_FORMAT, "quant_method"},
    {"quantization_config", "{\"quant_method\": \"ganq\"}", GANQ_ERR_FORMAT, "format_version"},
    {"quantization_config", "{\"quant_method\": \"ganq\", \"format_version\": 2}",
     GANQ_ERR_UNSUPPORTED, "version 1"},
    {"quantization_config",
     "{\"quant_method\": \"ganq\", \"format_version\": 1, \"packing\": \"rows\"}",
     GANQ_ERR_UNSUPPORTED, "rows"},
    {"quantization_config", "{\"quant_method\": \"ganq\", \"format_version\": 1}", GANQ_ERR_FORMAT,
     "tensors"},
    {"quantization_config", "{\"quant_method\": \"ganq\", \"format_version\": 1, \"tensors\": []}",
     GANQ_ERR_FORMAT, "tensors"},
};

START_TEST(refusals) {
    ganq__config c;
    write_edited(NULL, bad[_i].key, bad[_i].value);
    ck_ganq_fails(ganq__config_load(ctx, dir, &c), bad[_i].status, bad[_i].word);
    ck_assert_ptr_nonnull(strstr(ganq_last_error(), "config.json"));
}
END_TEST

START_TEST(files_that_are_none) {
    ganq__config c;
    ck_ganq_fails(ganq__config_load(ctx, dir, &c), GANQ_ERR_NOT_FOUND, "config.json");
    write_file("config.json", "");
    ck_ganq_fails(ganq__config_load(ctx, dir, &c), GANQ_ERR_FORMAT, "config.json");
    write_file("config.json", "[]");
    ck_ganq_fails(ganq__config_load(ctx, dir, &c), GANQ_ERR_FORMAT, "config.json");
    write_file("config.json", "{\"architectures\": ");
    ck_ganq_fails(ganq__config_load(ctx, dir, &c), GANQ_ERR_FORMAT, "config.json");
}
END_TEST

int main(void) {
    Suite *suite = suite_create("config");
    TCase *tests = tcase_create("config");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, fields_and_defaults);
    tcase_add_test(tests, biases_by_family);
    tcase_add_test(tests, rope_settings);
    tcase_add_test(tests, windows_by_family);
    tcase_add_test(tests, opt_settings);
    tcase_add_test(tests, head_dim_by_family);
    tcase_add_test(tests, token_ids);
    tcase_add_loop_test(tests, refusals, 0, (int)(sizeof bad / sizeof bad[0]));
    tcase_add_test(tests, files_that_are_none);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}

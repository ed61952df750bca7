/*
 * Answers a question as pard.h says, in C99. Prints the answer as it is written, and nothing else, to standard output.
 *
 *     smoke MODEL QUESTION MAX_TOKENS [DRAFT]      DRAFT may be "itself"
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pard.h"

struct seen {
    size_t rounds;
    size_t tokens;
    int stop_at_once;
};

static int on_round(const pard_round *round, void *user) {
    struct seen *seen = user;
    seen->rounds += 1;
    seen->tokens += round->token_count;
    if (!seen->stop_at_once) {
        fwrite(round->text, 1, round->text_length, stdout);
        fflush(stdout);
    }
    return seen->stop_at_once;
}

static void on_progress(const char *what, uint64_t done, uint64_t total, void *user) {
    if (what[0] != '\0' && done == total)
        *(int *)user += 1;
}

static void check(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "this does not hold: %s\n", what);
        exit(1);
    }
}

static void need(pard_status status, const pard_error *error) {
    if (status != PARD_OK) {
        fprintf(stderr, "%s: %s\n", pard_status_name(status), pard_error_message(error));
        exit(1);
    }
}

int main(int count, char **arguments) {
    pard_error *error = pard_error_new();
    pard_device *device = NULL;
    pard_model *model = NULL;
    pard_draft *draft = NULL;
    pard_session *session = NULL;
    pard_load_options load = {sizeof load, PARD_WEIGHTS_COMPACT, PARD_CACHE_F16, PARD_PRODUCTS_PLAIN, NULL, NULL, NULL,
                              PARD_STATES_AUTO};
    pard_session_options how = {.size = sizeof how, .method = PARD_METHOD_BEST, .drafts = 4, .context = 256};
    pard_answer_options answer = {.size = sizeof answer};
    pard_statistics statistics = {0};
    pard_message question = {"user", NULL};
    struct seen seen = {0, 0, 0};
    uint32_t mask = 0;
    int loaded = 0;

    if (count < 4) {
        fprintf(stderr, "usage: smoke MODEL QUESTION MAX_TOKENS [DRAFT]\n");
        return 2;
    }
    check(strcmp(pard_version(), PARD_VERSION) == 0, "header and library are of one version");
    question.content = arguments[2];
    answer.max_tokens = strtoul(arguments[3], NULL, 10);

    need(pard_device_open(NULL, &device, error), error);
    check(pard_device_name(device)[0] != '\0', "a device has a name");

    check(pard_model_load(device, "/no/such/model", NULL, &model, error) == PARD_NO_MODEL, "a missing model is missing");
    check(model == NULL && strstr(pard_error_message(error), "/no/such/model") != NULL, "the message names it");

    load.progress = on_progress;
    load.user = &loaded;
    need(pard_model_load(device, arguments[1], &load, &model, error), error);
    check(loaded > 0, "progress reached its end");
    if (count > 4) {
        load.mask_token = &mask;
        need(pard_draft_load(model, strcmp(arguments[4], "itself") == 0 ? NULL : arguments[4], &load, &draft, error),
             error);
    }
    need(pard_session_new(model, draft, &how, &session, error), error);

    /* Handles are kept alive by what was made from them. */
    pard_device_free(device);
    pard_draft_free(draft);
    pard_model_free(model);

    need(pard_session_start_chat(session, &question, 1, &answer, error), error);
    need(pard_session_run(session, on_round, &seen, error), error);
    statistics.size = sizeof statistics;
    need(pard_session_statistics(session, &statistics, error), error);
    check(statistics.rounds == seen.rounds && statistics.answer_tokens == seen.tokens, "callbacks saw every round");
    check(statistics.finish != PARD_WRITING && statistics.answer_tokens <= answer.max_tokens, "the answer ended");
    check(statistics.method == (count > 4 ? PARD_METHOD_PARD : PARD_METHOD_AR), "the best method was taken");
    check(strlen(pard_session_text(session)) > 0, "there is a text");

    /* Once more, ended by the callback. */
    seen.stop_at_once = 1;
    seen.rounds = 0;
    need(pard_session_start_chat(session, &question, 1, &answer, error), error);
    need(pard_session_run(session, on_round, &seen, error), error);
    need(pard_session_statistics(session, &statistics, error), error);
    check(seen.rounds == 1 && statistics.finish == PARD_FINISH_CANCELLED, "a callback ends the answer");

    pard_session_free(session);
    pard_error_free(error);
    return 0;
}

/*
 * pard.h - language models on any GPU, from C and all that speaks C.
 *
 * This header is the manual. In short:
 *
 *     pard_error *error = pard_error_new();
 *     pard_device *device = NULL;
 *     pard_model *model = NULL;
 *     pard_session *session = NULL;
 *     pard_message question = {"user", "Why is the sky blue?"};
 *
 *     if (pard_device_open(NULL, &device, error) ||
 *         pard_model_load(device, "model.gguf", NULL, &model, error) ||
 *         pard_session_new(model, NULL, NULL, &session, error) ||
 *         pard_session_start_chat(session, &question, 1, NULL, error) ||
 *         pard_session_run(session, NULL, NULL, error))
 *         fprintf(stderr, "%s\n", pard_error_message(error));
 *     else
 *         printf("%s\n", pard_session_text(session));
 *
 *     pard_session_free(session);
 *     pard_model_free(model);
 *     pard_device_free(device);
 *     pard_error_free(error);
 *
 * HANDLES. What a function named *_new, *_open or *_load gives is yours until you hand it to the *_free of its kind, once.
 * *_free takes NULL and does nothing then. A handle keeps alive what it was made from, so handles may be freed in any
 * order, and a device or a model may be freed as soon as it is not named in a call any more. Where a call fails, the
 * handle it would have made is NULL.
 *
 * STRINGS are UTF-8 and end with a zero byte. Strings that go in are copied. Of strings that come out each function says
 * how long they live; none is to be freed.
 *
 * THREADS. pard_device, pard_model and pard_draft may be used by any number of threads at once. A pard_session is used by
 * one thread at a time, which may be another one each time; a call that finds it in use returns PARD_BUSY and does
 * nothing, so that no fault of a caller can disturb an answer. pard_session_cancel is the exception: it may be called by any
 * thread at any time. A pard_error belongs to one thread at a time. No handle may be freed while a call uses it.
 *
 * CALLBACKS run on the thread that made the call, before it returns. They may call any function of this library but those
 * of the session at work (pard_session_cancel excepted), which return PARD_BUSY there. A callback must return: it may not
 * leave by longjmp or by a C++ exception.
 *
 * ERRORS. A function that can fail returns a pard_status, which is PARD_OK, 0, if it did what it says. Its last argument
 * may be a pard_error, which then holds the same status and a message that names what is at fault; a call that succeeds
 * leaves it as it was. The library does not print, exit, or abort: should it have a fault of its own, the call
 * returns PARD_INTERNAL. NULL where a pointer is needed is PARD_INVALID_ARGUMENT.
 *
 * STRUCTS begin with their own size, so that later versions can add fields at the end:
 *
 *     pard_session_options options = {sizeof options};
 *     options.context = 2048;
 *
 * Zero, in any other field of a struct of options, is its default. NULL in place of a struct of options is all defaults.
 */
#ifndef PARD_H
#define PARD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- The library ---- */

/* What this header describes. Until 1.0 the second number changes with anything that could break a caller. */
#define PARD_VERSION "0.1.0"

/* The version of the library that is loaded, such as "0.1.0". It lives for ever. */
const char *pard_version(void);

/* ---- Errors ---- */

typedef int32_t pard_status;

enum {
    PARD_OK = 0,
    PARD_INVALID_ARGUMENT = 1, /* NULL, text that is not UTF-8, an option out of range, a struct of unknown size */
    PARD_NO_DEVICE = 2,        /* there is no such graphics adapter, or it does not open */
    PARD_NO_MODEL = 3,         /* no model has that name, it cannot be read, or its download failed */
    PARD_BAD_MODEL = 4,        /* the model's files are damaged, incomplete, or of a kind that is not run */
    PARD_BAD_DRAFT = 5,        /* the draft is not one for this model, or not one for this method */
    PARD_BAD_PROMPT = 6,       /* the prompt is empty or too long, or the chat template refuses the messages */
    PARD_NO_MEMORY = 7,        /* the device has no room, or its limits are too low */
    PARD_DEVICE_LOST = 8,      /* the device stopped answering: free all that is on it and open it again */
    PARD_BUSY = 9,             /* another call is using the session */
    PARD_INTERNAL = 10         /* a fault of the library or of the driver */
};

/* The status' name, such as "PARD_NO_MODEL"; "PARD_UNKNOWN" for any other number. It lives for ever. */
const char *pard_status_name(pard_status status);

/* Keeps the last error of the calls it is given to. Any call takes NULL in its place. */
typedef struct pard_error pard_error;

/* An empty one: PARD_OK, and no message. */
pard_error *pard_error_new(void);
void pard_error_free(pard_error *error);

/* PARD_OK if no call failed; of NULL too. */
pard_status pard_error_status(const pard_error *error);

/* The message, or "". It lives until the error is given to another call or is freed. */
const char *pard_error_message(const pard_error *error);

/* ---- Devices ---- */

/* An open graphics adapter. */
typedef struct pard_device pard_device;

typedef struct pard_device_options {
    size_t size;         /* sizeof(pard_device_options) */
    const char *device;  /* a part of the adapter's name, or its index as `pard devices` lists them; NULL is the best */
    const char *backend; /* "vulkan", "metal" or "dx12"; NULL is any. WGPU_BACKEND and WGPU_ADAPTER_NAME count too */
} pard_device_options;

/* Opens an adapter. PARD_NO_DEVICE comes with a list of those there are. */
pard_status pard_device_open(const pard_device_options *options, pard_device **device, pard_error *error);
void pard_device_free(pard_device *device);

/* The adapter's name and driver. It lives as long as the handle. */
const char *pard_device_name(const pard_device *device);

/* ---- Models ---- */

/* A model on a device: weights, which all sessions share, and its tokenizer. */
typedef struct pard_model pard_model;

/* A model that proposes tokens for another one. */
typedef struct pard_draft pard_draft;

/* Is told how far a step has come: `done` of `total` bytes of `what`, which lives until it returns. */
typedef void (*pard_progress)(const char *what, uint64_t done, uint64_t total, void *user);

/*
 * Weights on the device: as stored, where kernels read that (F32 becomes BF16); all F32; all BF16, but for F16; or quantised
 * to 8 bits, or to 4 with the embedding table and the head at 8, where they are not quantised yet.
 */
enum {
    PARD_WEIGHTS_COMPACT = 0,
    PARD_WEIGHTS_F32 = 1,
    PARD_WEIGHTS_BF16 = 2,
    PARD_WEIGHTS_Q8_0 = 3,
    PARD_WEIGHTS_Q4_K = 4
};
/* Keys and values on the device: 16 bits each, 32, or 8 and a scale for each 32 of them. */
enum { PARD_CACHE_F16 = 0, PARD_CACHE_F32 = 1, PARD_CACHE_Q8_0 = 2 };
/* What multiplies matrices: ordinary instructions, or the adapter's matrix units. */
enum { PARD_PRODUCTS_PLAIN = 0, PARD_PRODUCTS_COOPERATIVE = 1 };

/*
 * Whether a draft made for it (PARD-2) reads its target's hidden states: if the target is the one it was made for and on the
 * same device, which is far faster, or not at all. A draft that could read them and does not has a notice of it.
 */
enum { PARD_STATES_AUTO = 0, PARD_STATES_OFF = 1 };

typedef struct pard_load_options {
    size_t size; /* sizeof(pard_load_options) */
    int32_t weights;
    int32_t cache;
    int32_t products;
    const uint32_t *mask_token; /* for pard_draft_load: the mask token, where the draft's config.json names none */
    pard_progress progress;     /* called while files are downloaded and weights go to the device */
    void *user;                 /* handed to `progress` */
    int32_t target_states;      /* for pard_draft_load: use of the target's hidden states */
} pard_load_options;

/*
 * Loads a model: a folder in Hugging Face form, a .gguf file, a repository of the Hugging Face hub ("owner/name",
 * "owner/name:Q4_K_M", "owner/name@revision" or its address; from the hub's local cache or else downloaded), or "smollm2". Where a
 * repository has several GGUF files and none is named, one that fits the device is taken, as pard_model_notice says. It takes as long as reading the weights does, and cannot be stopped.
 */
pard_status pard_model_load(const pard_device *device, const char *name, const pard_load_options *options,
                            pard_model **model, pard_error *error);
void pard_model_free(pard_model *model);

/* One file in memory. */
typedef struct pard_file {
    const char *name;  /* such as "config.json" */
    const void *bytes;
    size_t size;
} pard_file;

/*
 * Loads a model from memory: the files of a folder in Hugging Face form, or one whose name ends with ".gguf". `name` is what to
 * call the model. The bytes are used until the call returns and no longer.
 */
pard_status pard_model_load_files(const pard_device *device, const char *name, const pard_file *files,
                                  size_t file_count, const pard_load_options *options, pard_model **model,
                                  pard_error *error);

/* What to call the model. It lives as long as the handle. */
const char *pard_model_name(const pard_model *model);

/* Tokens that the model was made to read at once; 0 of NULL. */
size_t pard_model_context(const pard_model *model);

/* Bytes that its weights take on the device; 0 of NULL. */
uint64_t pard_model_bytes(const pard_model *model);

/*
 * What its user should know of how the model was loaded, one thing each: matrices kept in another format than asked for, and
 * the like. NULL for an `index` past the last one, and of NULL. It lives as long as the handle.
 */
const char *pard_model_notice(const pard_model *model, size_t index);

/* 1 if the model comes with a chat template, 0 if it does not or is NULL. */
int32_t pard_model_has_chat_template(const pard_model *model);

/*
 * Loads a draft for `target`, on the same device. `name` is as in pard_model_load; NULL lets the target draft for itself,
 * which shows the method and not its speed. PARD_BAD_DRAFT if the two do not share a tokenizer.
 */
pard_status pard_draft_load(const pard_model *target, const char *name, const pard_load_options *options,
                            pard_draft **draft, pard_error *error);
void pard_draft_free(pard_draft *draft);

/*
 * As pard_model_notice, of a draft: special tokens that it names otherwise than its target, and why it does not read its
 * target's states where it could.
 */
const char *pard_draft_notice(const pard_draft *draft, size_t index);

/* ---- Text and tokens ---- */

/* For options that have a default of their own. */
enum { PARD_DEFAULT = 0, PARD_ON = 1, PARD_OFF = 2 };

/* One turn of a conversation. */
typedef struct pard_message {
    const char *role;    /* "system", "user" or "assistant" */
    const char *content; /* what is said */
} pard_message;

/*
 * The tokens of plain text, with those that the model wants around it. Writes at most `capacity` of them to `tokens`, which
 * may be NULL if `capacity` is 0, and sets `*count` to how many there are.
 */
pard_status pard_model_tokenize(const pard_model *model, const char *text, uint32_t *tokens, size_t capacity,
                                size_t *count, pard_error *error);

/*
 * The tokens of a conversation as the model's chat template writes it, with the beginning of an answer at the end.
 * `thinking`, PARD_ON or PARD_OFF, is for templates that know of it.
 */
pard_status pard_model_tokenize_chat(const pard_model *model, const pard_message *messages, size_t message_count,
                                     int32_t thinking, uint32_t *tokens, size_t capacity, size_t *count,
                                     pard_error *error);

/*
 * The text of `tokens`, special tokens left out. Writes at most `capacity` bytes to `text`, the zero byte at the end
 * included, whole characters only; sets `*length` to the text's length in bytes without the zero byte.
 */
pard_status pard_model_detokenize(const pard_model *model, const uint32_t *tokens, size_t count, char *text,
                                  size_t capacity, size_t *length, pard_error *error);

/* ---- Sessions ---- */

/* One sequence being written: keys and values on the device, and the answer so far. */
typedef struct pard_session pard_session;

/* Who proposes tokens. None of it changes the text, unless PARD_ACCEPT_REJECTION is asked for. */
enum {
    PARD_METHOD_BEST = 0, /* PARD if the draft has a mask token, else VSD; AR without a draft */
    PARD_METHOD_AR = 1,   /* nobody: one token a round */
    PARD_METHOD_VSD = 2,  /* an ordinary draft, in K passes */
    PARD_METHOD_PARD = 3, /* a parallel draft, in one pass */
    PARD_METHOD_NGRAM = 4 /* no model: what followed the newest tokens where they stood before */
};

/* When a proposal of a draft is accepted, where tokens are drawn. */
enum {
    PARD_ACCEPT_NOISE = 0,    /* if the model draws the same by the same noise: every method writes the same text */
    PARD_ACCEPT_REJECTION = 1 /* by chance, as speculative sampling has it (arXiv:2211.17192): more are accepted, and the text is
                                 distributed as the model's, but depends on the draft and on K */
};

typedef struct pard_session_options {
    size_t size;       /* sizeof(pard_session_options) */
    int32_t method;    /* PARD_METHOD_... */
    int32_t drafts;    /* K, tokens proposed each round, 1 to 16; 0 chooses it round by round */
    size_t context;    /* tokens that prompt and answer may take together; 0 is what the model was made for, at most 4096 */
    int32_t run_ahead; /* PARD_ON submits a round before the last one's tokens are known; by default GPUs do */
    int32_t acceptance;    /* PARD_ACCEPT_... */
    size_t ngram_longest;  /* for n-grams: tokens that are looked up at first, 64 at most; 0 is 3 */
    size_t ngram_shortest; /* and at last; 0 is 1 */
    int32_t with_ngrams;   /* PARD_ON lets n-grams propose in the draft's place in rounds in which they promise more */
} pard_session_options;

/* Makes a session, and with it its caches on the device. `draft` may be NULL: then there is no speculation. */
pard_status pard_session_new(const pard_model *model, const pard_draft *draft, const pard_session_options *options,
                             pard_session **session, pard_error *error);
void pard_session_free(pard_session *session);

/* What is added to a token's logit. */
typedef struct pard_token_bias {
    uint32_t token;
    float bias; /* -10000 to 10000 */
} pard_token_bias;

/*
 * How an answer is written. Tokens are chosen in this order: biases and bans, penalties, temperature, top_k, top_p, min_p. All
 * of it is PARD_INVALID_ARGUMENT where it is out of range.
 */
typedef struct pard_answer_options {
    size_t size;             /* sizeof(pard_answer_options) */
    size_t max_tokens;       /* tokens of the answer at most; 0 is 256 */
    const char *const *stop; /* texts that end the answer and are not part of it */
    size_t stop_count;
    int32_t thinking;        /* PARD_ON, PARD_OFF: for chat templates that know of it */
    float temperature;       /* tokens are drawn from softmax(logits / temperature), up to 1000; 0 takes the likeliest */
    uint64_t seed;           /* names the draws: a prompt and a seed give the same text every time */
    size_t top_k;            /* draws from the so many likeliest tokens; 0: from all */
    float top_p;             /* draws from the likeliest tokens with this share of the probability; 0 is 1: from all */
    float min_p;             /* draws from tokens with this share of the likeliest one's probability; 0: from all */
    float repetition_penalty; /* divides positive logits of tokens in prompt or answer, multiplies others; 0 is 1: neither */
    float presence_penalty;  /* taken from the logits of tokens in the answer, -100 to 100 */
    float frequency_penalty; /* taken from them as often as the answer has them, -100 to 100 */
    const pard_token_bias *logit_bias; /* several for one token add up */
    size_t logit_bias_count;
    const uint32_t *banned;  /* tokens that are never chosen */
    size_t banned_count;
    int32_t logprobs;        /* PARD_ON reports log-probabilities of the answer's tokens; default: if top_logprobs is not 0 */
    size_t top_logprobs;     /* and of so many likeliest ones, 20 at most */
    /* The answer's form, by one of these at most: JSON that a schema describes, text that a regular expression matches, text of
     * a grammar in GBNF or in llguidance's form of Lark, or one of some texts. */
    const char *json_schema;
    const char *regex;
    const char *grammar;
    const char *const *choices;
    size_t choice_count;
    size_t min_tokens;       /* tokens of the answer at least: what would end it before is not chosen or, as stop, not looked for */
} pard_answer_options;

/*
 * The three ways to begin an answer. Each forgets the session's last answer and reads the prompt, which takes as long as the
 * prompt is long; pard_session_cancel ends it early. The answer is then written by pard_session_run or pard_session_round.
 * PARD_BAD_PROMPT if the prompt is empty or leaves no room in the context.
 *
 * pard_session_start goes on with plain text; pard_session_start_chat answers a conversation, by the model's chat
 * template; pard_session_start_tokens goes on with tokens.
 */
pard_status pard_session_start(pard_session *session, const char *text, const pard_answer_options *options,
                               pard_error *error);
pard_status pard_session_start_chat(pard_session *session, const pard_message *messages, size_t message_count,
                                    const pard_answer_options *options, pard_error *error);
pard_status pard_session_start_tokens(pard_session *session, const uint32_t *tokens, size_t count,
                                      const pard_answer_options *options, pard_error *error);

/* Why an answer ended. */
enum {
    PARD_WRITING = 0,          /* it has not */
    PARD_FINISH_STOP = 1,      /* the model ended it, or a stop text came up */
    PARD_FINISH_LENGTH = 2,    /* it is as long as it may be */
    PARD_FINISH_CONTEXT = 3,   /* the context is full */
    PARD_FINISH_CANCELLED = 4, /* pard_session_cancel, or the callback, ended it */
    PARD_FINISH_FAILED = 5     /* a round failed */
};

/* A token, and how probable the model finds it: the natural logarithm. */
typedef struct pard_likely_token {
    uint32_t token;
    float logprob;
} pard_likely_token;

/*
 * How probable the model found a token of the answer, and which ones it found likeliest: of softmax(logits), before biases,
 * penalties, temperature and truncation.
 */
typedef struct pard_token_logprobs {
    uint32_t token;
    float logprob;
    const pard_likely_token *top; /* the likeliest first */
    size_t top_count;
} pard_token_logprobs;

/* What one round wrote. Pointers live until the next call with the session. */
typedef struct pard_round {
    size_t size;            /* sizeof(pard_round) */
    const char *text;       /* the text that became certain, whole characters only; often "", never NULL */
    size_t text_length;     /* its bytes */
    const uint32_t *tokens; /* the answer's tokens of this round; the text of the last ones may come later */
    size_t token_count;
    size_t proposed;        /* K of the round */
    size_t accepted;        /* proposals that the model agreed with */
    double seconds;         /* that the round took */
    int32_t finish;         /* PARD_WRITING, or why the answer ended with this round */
    const pard_token_logprobs *logprobs; /* of `tokens`, one for each, if pard_answer_options asks for them */
    size_t logprob_count;   /* token_count, or 0 */
} pard_round;

/*
 * Writes 1 to K + 1 tokens more, and says which in `*round`, of which the caller has set `size`; `round` may be NULL. For
 * programs with a frame to draw between rounds. An answer that has ended, or none begun, gets no round: text and tokens
 * are empty, and `finish` says how it ended, PARD_FINISH_CANCELLED if none was begun.
 */
pard_status pard_session_round(pard_session *session, pard_round *round, pard_error *error);

/* Is given each round. Where it returns anything but 0, the answer ends there. */
typedef int (*pard_on_round)(const pard_round *round, void *user);

/* Writes the answer to its end; `on_round`, which may be NULL, is called after every round. */
pard_status pard_session_run(pard_session *session, pard_on_round on_round, void *user, pard_error *error);

/*
 * Ends the answer that is being read or written, within one round; from any thread. What was written stays. It has no effect
 * on an answer that is begun later.
 */
void pard_session_cancel(pard_session *session);

/* The answer so far. It lives until the next call with the session. "" while another call uses the session. */
const char *pard_session_text(pard_session *session);

/* Counts and times of the session's answer. */
typedef struct pard_statistics {
    size_t size;               /* sizeof(pard_statistics) */
    size_t prompt_tokens;
    size_t answer_tokens;      /* a stop token at the end included */
    size_t committed_tokens;   /* tokens that rounds wrote, those dropped after the end included */
    size_t rounds;
    double tokens_per_round;
    double prefill_seconds;    /* for the prompt */
    double decode_seconds;     /* for all rounds */
    double tokens_per_second;  /* answer_tokens / decode_seconds */
    double mean_drafts;        /* mean K */
    size_t proposed[16];       /* in how many rounds there was an i-th proposal */
    size_t accepted[16];       /* in how many of those it was accepted */
    int32_t method;            /* PARD_METHOD_..., as it was chosen */
    int32_t finish;            /* PARD_WRITING, or why the answer ended */
} pard_statistics;

/* Fills `*statistics`, of which the caller has set `size`. */
pard_status pard_session_statistics(pard_session *session, pard_statistics *statistics, pard_error *error);

#ifdef __cplusplus
}
#endif

#endif

// Answers a question as pard.h says, in C++17: handles in unique_ptr, rounds driven one at a time, errors as exceptions.
// Prints the answer as it is written, and nothing else, to standard output.
//
//     smoke MODEL QUESTION MAX_TOKENS
#include <cstdlib>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "pard.h"

template <auto release> struct Release {
    template <typename Handle> void operator()(Handle *handle) const { release(handle); }
};
using Error = std::unique_ptr<pard_error, Release<pard_error_free>>;
using Device = std::unique_ptr<pard_device, Release<pard_device_free>>;
using Model = std::unique_ptr<pard_model, Release<pard_model_free>>;
using Session = std::unique_ptr<pard_session, Release<pard_session_free>>;

static Error error{pard_error_new()};

static void need(pard_status status) {
    if (status != PARD_OK)
        throw std::runtime_error(std::string(pard_status_name(status)) + ": " + pard_error_message(error.get()));
}

static Session session_of(const char *name) {
    pard_device *device = nullptr;
    need(pard_device_open(nullptr, &device, error.get()));
    Device device_owner{device};
    pard_model *model = nullptr;
    need(pard_model_load(device, name, nullptr, &model, error.get()));
    Model model_owner{model};

    size_t count = 0;
    need(pard_model_tokenize(model, "Grüße", nullptr, 0, &count, error.get()));
    std::vector<uint32_t> tokens(count);
    need(pard_model_tokenize(model, "Grüße", tokens.data(), tokens.size(), &count, error.get()));
    std::string text(64, '?');
    size_t length = 0;
    need(pard_model_detokenize(model, tokens.data(), count, text.data(), text.size(), &length, error.get()));
    text.resize(length);
    if (text != "Grüße")
        throw std::runtime_error("text does not survive its tokens: " + text);

    pard_session_options options = {};
    options.size = sizeof options;
    options.context = 256;
    pard_session *session = nullptr;
    need(pard_session_new(model, nullptr, &options, &session, error.get()));
    return Session{session};
}

int main(int count, char **arguments) {
    if (count != 4) {
        std::cerr << "usage: smoke MODEL QUESTION MAX_TOKENS\n";
        return 2;
    }
    try {
        Session session = session_of(arguments[1]);
        const pard_message question = {"user", arguments[2]};
        pard_answer_options options = {};
        options.size = sizeof options;
        options.max_tokens = std::strtoul(arguments[3], nullptr, 10);
        need(pard_session_start_chat(session.get(), &question, 1, &options, error.get()));
        pard_round round = {};
        round.size = sizeof round;
        do {
            need(pard_session_round(session.get(), &round, error.get()));
            std::cout << std::string_view(round.text, round.text_length) << std::flush;
        } while (round.finish == PARD_WRITING);
    } catch (const std::exception &exception) {
        std::cerr << exception.what() << '\n';
        return 1;
    }
    return 0;
}

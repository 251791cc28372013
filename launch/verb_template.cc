// spillway template: a conversation as JSON on standard input to the text of the prompt, and
// nothing else, on standard output. The conversation is an array of messages, or an object whose
// "messages" and "tools" are taken and whose other keys are variables of the template, as in a
// request's chat_template_kwargs; what a flag says wins.
#include <nlohmann/json.hpp>
#include <string>

#include "kernels/core/error.h"
#include "launch/standard_streams.h"
#include "launch/verbs.h"
#include "runtime/io/gguf.h"
#include "runtime/token/chat_template.h"
#include "runtime/token/jinja/json_input.h"
#include "runtime/token/tokenizer.h"

namespace spillway {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kTemplateKey = "tokenizer.chat_template";
constexpr const char* kGiveMessages =
    "give an array of messages, e.g. [{\"role\": \"user\", \"content\": \"Hello\"}], or an object "
    "with \"messages\"";

// What a template may be given, and the object around "messages" and "tools".
constexpr int kDeepest = static_cast<int>(jinja::kJsonNesting) + 1;

Json parse_json(const std::string& text, const std::string& where, const char* todo) {
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) {
    throw Error("there is no JSON", where, todo);
  }
  // dump() and the copies of a Json call themselves at every level: 400 000 levels end the stack.
  const auto shallow = [&](int depth, Json::parse_event_t event, Json&) {
    const bool opens =
        event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start;
    if (opens && depth >= kDeepest) {
      throw Error("the JSON is nested deeper than " + std::to_string(kDeepest) + " levels", where,
                  todo);
    }
    return true;
  };
  try {
    return Json::parse(text, shallow);
  } catch (const nlohmann::json::parse_error& error) {
    // The library's words carry its own name and an id: keep what follows the position.
    std::string reason = error.what();
    reason.erase(0, reason.find(": ") + 2);
    throw Error("not JSON: " + reason, where + ", byte " + std::to_string(error.byte), todo);
  } catch (const nlohmann::json::exception&) {
    throw Error("a number is too large for a double", where, todo);
  }
}

ChatTemplateInput read_conversation(const TextOptions& options) {
  Json json = parse_json(read_standard_input("JSON"), "standard input", kGiveMessages);
  ChatTemplateInput input;
  if (json.is_object()) {
    const auto messages = json.find("messages");
    if (messages == json.end()) {
      throw Error("the object has no \"messages\"", "standard input", kGiveMessages);
    }
    input.messages_json = messages->dump();
    if (json.contains("tools")) input.tools_json = json["tools"].dump();
    for (const char* key : {"messages", "tools"}) json.erase(key);
    if (options.add_generation_prompt) json.erase("add_generation_prompt");
    if (options.bos) json.erase("bos_token");
    if (options.eos) json.erase("eos_token");
    input.extra_json = json.dump();
  } else {
    input.messages_json = json.dump();
  }
  if (!input.messages_json.starts_with('[')) {
    throw Error("the messages are not an array", "standard input", kGiveMessages);
  }
  if (!options.tools_file.empty()) {
    const char* todo = "give an array of tools";
    const Json tools = parse_json(read_file_bytes(options.tools_file), options.tools_file, todo);
    if (!tools.is_array()) throw Error("the tools are not an array", options.tools_file, todo);
    input.tools_json = tools.dump();
  }
  input.add_generation_prompt = options.add_generation_prompt;
  return input;
}

std::string token_text(const Tokenizer& tokenizer, std::optional<int32_t> token) {
  return token ? std::string(tokenizer.token_text(*token)) : std::string();
}

// The template's text; the model's BOS and EOS go into input.
std::string read_model(const Options& options, ChatTemplateInput& input) {
  const Gguf gguf = Gguf::open(options.model);
  if (!options.text.bos || !options.text.eos) {
    const Tokenizer tokenizer = Tokenizer::make(gguf);
    input.bos_token = token_text(tokenizer, tokenizer.bos());
    input.eos_token = token_text(tokenizer, tokenizer.eos());
  }
  if (!options.text.template_file.empty()) return "";
  const std::string source(gguf.string_or(kTemplateKey, ""));
  if (source.empty()) {
    throw Error("the model has no chat template (" + std::string(kTemplateKey) + ")", options.model,
                "give one with --template FILE");
  }
  return source;
}

}  // namespace

int verb_template(const Options& options) {
  const TextOptions& text = options.text;
  ChatTemplateInput input = read_conversation(text);
  std::string source;
  std::string where = options.model;
  if (!options.model.empty()) source = read_model(options, input);
  if (!text.template_file.empty()) {
    source = read_file_bytes(text.template_file);
    where = text.template_file;
  }
  if (text.bos) input.bos_token = *text.bos;
  if (text.eos) input.eos_token = *text.eos;
  std::string prompt;
  try {
    prompt = ChatTemplate::parse(source).render(input);
  } catch (const Error& error) {
    throw Error(error.message(), error.where().empty() ? where : where + ", " + error.where(),
                error.todo());
  }
  write_standard_output(prompt);
  return 0;
}

}  // namespace spillway

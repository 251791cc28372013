// Puts a conversation's JSON and the template together. The language itself is in jinja/.
// Variables are those that transformers' apply_chat_template gives: tools and documents are none
// when there are none, so that `tools is defined` holds.
#include "runtime/token/chat_template.h"

#include <nlohmann/json.hpp>

#include "kernels/core/error.h"
#include "runtime/token/jinja/interpreter.h"
#include "runtime/token/jinja/json_input.h"
#include "runtime/token/jinja/parser.h"
#include "runtime/token/jinja/text.h"

namespace spillway {
namespace {

// Real templates have up to 30 kB; one of 1 MiB takes 70 MiB as a tree.
constexpr size_t kMaxSourceBytes = 1 << 20;

}  // namespace

struct ChatTemplate::Impl {
  jinja::Template program;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

ChatTemplate ChatTemplate::parse(std::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    throw Error("the template has " + std::to_string(source.size()) + " bytes, at most " +
                    std::to_string(kMaxSourceBytes) + " are taken",
                "chat template");
  }
  auto impl = std::make_unique<Impl>();
  impl->program = jinja::parse_template(source);
  return ChatTemplate(std::move(impl));
}

std::string ChatTemplate::render(const ChatTemplateInput& input) const {
  using jinja::Kind;
  jinja::Heap heap{jinja::Limits{}};
  const jinja::Value messages = jinja::read_json(heap, "messages", input.messages_json);
  if (!messages.is(Kind::kList)) throw Error("messages must be a JSON array");
  jinja::Value tools = jinja::None{};
  if (!input.tools_json.empty()) tools = jinja::read_json(heap, "tools", input.tools_json);
  if (!tools.is(Kind::kList) && !tools.is(Kind::kNone)) {
    throw Error("tools must be a JSON array or null");
  }
  jinja::Variables variables = {
      {"messages", messages},
      {"tools", tools},
      {"documents", jinja::None{}},
      {"add_generation_prompt", input.add_generation_prompt},
      {"bos_token", heap.text(input.bos_token)},
      {"eos_token", heap.text(input.eos_token)},
  };
  jinja::Value extra;
  if (!input.extra_json.empty()) {
    extra = jinja::read_json(heap, "extra", input.extra_json);
    if (!extra.is(Kind::kDict)) throw Error("extra must be a JSON object");
    for (const auto& [key, value] : extra.dict().entries()) {
      variables.emplace_back(key.text(), value);  // the later of equal names wins
    }
  }
  return jinja::interpret(heap, impl_->program, variables);
}

std::string ChatTemplate::render(const std::vector<ChatMessage>& messages,
                                 bool add_generation_prompt, std::string_view bos_token,
                                 std::string_view eos_token) const {
  nlohmann::ordered_json array = nlohmann::ordered_json::array();
  for (const ChatMessage& message : messages) {
    for (const std::string& text : {message.role, message.content}) {
      if (const auto bad = jinja::invalid_utf8(text)) {
        throw Error("a chat message is not UTF-8", "byte " + std::to_string(*bad));
      }
    }
    array.push_back({{"role", message.role}, {"content", message.content}});
  }
  ChatTemplateInput input;
  input.messages_json = array.dump();
  input.add_generation_prompt = add_generation_prompt;
  input.bos_token = bos_token;
  input.eos_token = eos_token;
  return render(input);
}

}  // namespace spillway

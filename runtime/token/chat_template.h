// ChatTemplate: a model's Jinja template, rendered over a conversation to the prompt's text.
// Rendered exactly as python3-jinja2 does with trim_blocks, lstrip_blocks and loopcontrols.
// Thread: immutable after parse(); render() may be called from any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace spillway {

struct ChatMessage {
  std::string role;
  std::string content;
};

struct ChatTemplateInput {
  // JSON texts, so that this header needs no JSON library: messages is an array of objects
  // (role, content, tool_calls, …), tools an array or empty for none, extra an object of further
  // variables or empty.
  std::string messages_json = "[]";
  std::string tools_json;
  std::string extra_json;
  bool add_generation_prompt = true;
  std::string bos_token;
  std::string eos_token;
};

class ChatTemplate {
 public:
  // Throws Error naming line and construct when the template is not valid or uses what is missing.
  static ChatTemplate parse(std::string_view source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // Throws Error: the template's own raise_exception, a type error, or a limit (steps, output
  // bytes, depth) that a hostile template hits.
  std::string render(const ChatTemplateInput& input) const;
  // The common case.
  std::string render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                     std::string_view bos_token, std::string_view eos_token) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace spillway

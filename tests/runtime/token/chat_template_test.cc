// ChatTemplate against goldens made with python3-jinja2 3.1 (see tests/golden/templates/README.md):
// whole templates over conversations, and one small template for every feature and every fault.
#include "runtime/token/chat_template.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "kernels/core/error.h"

namespace spillway {
namespace {

using Json = nlohmann::ordered_json;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

std::filesystem::path goldens() {
  return std::filesystem::path(SPILLWAY_SOURCE_DIR) / "tests/golden/templates";
}

// The rendered text, or nothing with the message in `fault`.
std::string render(const std::string& source, const ChatTemplateInput& input, std::string& fault) {
  fault.clear();
  try {
    return ChatTemplate::parse(source).render(input);
  } catch (const Error& e) {
    fault = e.message();
    return "";
  }
}

TEST(ChatTemplate, RendersOwnTemplatesLikeJinja2) {
  const Json conversations = Json::parse(read_file(goldens() / "conversations.json"));
  const Json expected = Json::parse(read_file(goldens() / "expected.json"));
  ASSERT_EQ(expected.size(), 3u);
  for (const auto& [name, texts] : expected.items()) {
    ASSERT_EQ(texts.size(), 2 * conversations.size());
    const std::string source = read_file(goldens() / name);
    for (size_t i = 0; i < texts.size(); ++i) {
      SCOPED_TRACE(name + " conversation " + std::to_string(i / 2));
      const Json& conversation = conversations[i / 2];
      ChatTemplateInput input;
      input.messages_json = conversation["messages"].dump();
      if (conversation.contains("tools")) input.tools_json = conversation["tools"].dump();
      input.add_generation_prompt = i % 2 == 0;
      input.bos_token = "<s>";
      input.eos_token = "</s>";
      std::string fault;
      const std::string text = render(source, input, fault);
      if (texts[i].is_null()) {
        EXPECT_NE(fault, "") << "jinja2 raises here, got: " << text;
      } else {
        EXPECT_EQ(fault, "");
        EXPECT_EQ(text, texts[i].get<std::string>());
      }
    }
  }
}

TEST(ChatTemplate, EveryFeatureAsInJinja2) {
  const Json golden = Json::parse(read_file(goldens() / "features.json"));
  ChatTemplateInput input;
  input.messages_json = golden["variables"]["messages"].dump();
  input.extra_json = golden["variables"]["extra"].dump();
  input.bos_token = "<s>";
  input.eos_token = "</s>";
  ASSERT_GT(golden["cases"].size(), 300u);
  for (const Json& one : golden["cases"]) {
    const std::string source = one["source"].get<std::string>();
    SCOPED_TRACE(source);
    std::string fault;
    const std::string text = render(source, input, fault);
    if (one.contains("error")) {
      EXPECT_EQ(fault, one["error"].get<std::string>()) << "got the text: " << text;
    } else {
      EXPECT_EQ(fault, "");
      EXPECT_EQ(text, one["text"].get<std::string>());
    }
  }
}

TEST(ChatTemplate, CommonCaseTakesMessages) {
  const auto chat = ChatTemplate::parse(
      "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}"
      "{% endfor %}{% if add_generation_prompt %}go{% endif %}");
  const std::vector<ChatMessage> messages = {{"user", "a\"\\\n\xc3\xa9"}, {"assistant", "{{ b }}"}};
  EXPECT_EQ(chat.render(messages, true, "<s>", "</s>"),
            "<s>user:a\"\\\n\xc3\xa9</s>assistant:{{ b }}</s>go");
  EXPECT_EQ(chat.render({}, false, "", ""), "");
}

TEST(ChatTemplate, ToolsAndDocumentsAreNoneWithoutAny) {
  const auto chat = ChatTemplate::parse(
      "{{ tools is defined }}{{ tools is none }}{{ documents is none }}{{ tools|length if tools "
      "}}");
  ChatTemplateInput input;
  EXPECT_EQ(chat.render(input), "TrueTrueTrue");
  input.tools_json = "[1, 2]";
  EXPECT_EQ(chat.render(input), "TrueFalseTrue2");
  input.tools_json = "null";
  EXPECT_EQ(chat.render(input), "TrueTrueTrue");
}

TEST(ChatTemplate, ExtraVariablesHideOthers) {
  const auto chat = ChatTemplate::parse("{{ bos_token }}{{ enable_thinking }}{{ range }}");
  ChatTemplateInput input;
  input.bos_token = "x";
  input.extra_json = R"({"bos_token": "y", "enable_thinking": false, "range": 3})";
  EXPECT_EQ(chat.render(input), "yFalse3");
}

TEST(ChatTemplate, SpecialTokensOfAnyBytesPassThrough) {
  const auto chat = ChatTemplate::parse("{{ bos_token }}|{{ eos_token + '.' }}");
  ChatTemplateInput input;
  input.bos_token = std::string("\xff\x00z", 3);
  input.eos_token = "\xe2\x96";
  EXPECT_EQ(chat.render(input), std::string("\xff\x00z|\xe2\x96.", 7));
}

TEST(ChatTemplate, BadInputIsNamed) {
  const auto chat = ChatTemplate::parse("{{ messages|length }}");
  const auto fault_of = [&](const ChatTemplateInput& input) {
    try {
      chat.render(input);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  ChatTemplateInput input;
  input.messages_json = "[{]";
  EXPECT_NE(fault_of(input).find("messages is not JSON"), std::string::npos) << fault_of(input);
  input.messages_json = "{}";
  EXPECT_NE(fault_of(input).find("must be a JSON array"), std::string::npos);
  input.messages_json = "";
  EXPECT_NE(fault_of(input).find("messages is not JSON"), std::string::npos);
  input.messages_json = "[\"\\ud800\"]";
  EXPECT_NE(fault_of(input).find("messages is not JSON"), std::string::npos);
  input.messages_json = "[1e999]";
  EXPECT_NE(fault_of(input).find("messages is not JSON"), std::string::npos);
  input.messages_json = std::string(100000, '[');
  EXPECT_NE(fault_of(input).find("nested deeper than 100"), std::string::npos);
  input.messages_json = "[]";
  input.tools_json = "3";
  EXPECT_NE(fault_of(input).find("tools must be"), std::string::npos);
  input.tools_json = "";
  input.extra_json = "[]";
  EXPECT_NE(fault_of(input).find("extra must be"), std::string::npos);
  EXPECT_THROW(chat.render({{"user", "\xff"}}, true, "", ""), Error);
}

TEST(ChatTemplate, ErrorsNameTheirLine) {
  std::string fault;
  render("a\n{# b\nc #}\n{{ x.y }}", {}, fault);
  EXPECT_EQ(fault, "line 4: 'x' is undefined");
  render("\n\n{% nope %}", {}, fault);
  EXPECT_EQ(fault, "line 3: the tag {% nope %} is not part of this Jinja, or out of place");
  render("{% macro m() %}\n{{ 1 / 0 }}{% endmacro %}\n\n{{ m() }}", {}, fault);
  EXPECT_EQ(fault, "line 2: division by zero");
  render("{{\n1 +\n'a' }}", {}, fault);
  EXPECT_EQ(fault, "line 2: + does not go between int and str");
  render("{{ raise_exception('only\nusers') }}", {}, fault);
  EXPECT_EQ(fault, "line 1: the template refuses: only users");
}

TEST(ChatTemplate, ASourceOfMegabytesIsRefused) {
  const std::string most(1 << 20, 'x');
  EXPECT_EQ(ChatTemplate::parse(most).render({}), most);
  try {
    ChatTemplate::parse(most + "x");
    ADD_FAILURE() << "taken";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "chat template: the template has 1048577 bytes, at most 1048576 are taken");
  }
}

TEST(ChatTemplate, StrftimeNowIsTheClock) {
  const std::string year = ChatTemplate::parse("{{ strftime_now('%Y') }}").render({});
  EXPECT_GE(std::stoi(year), 2025);
  EXPECT_EQ(ChatTemplate::parse("{{ strftime_now('a%%') }}|{{ strftime_now('') }}").render({}),
            "a%|");
}

TEST(ChatTemplate, OneTemplateServesManyThreads) {
  const auto chat = ChatTemplate::parse(
      "{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t ~ 'x' ~ m.content %}"
      "{% endfor %}{{ ns.t }}");
  const std::vector<ChatMessage> messages(50, ChatMessage{"user", "y"});
  std::vector<std::string> texts(4);
  std::vector<std::thread> threads;
  for (std::string& text : texts) {
    threads.emplace_back([&] { text = chat.render(messages, true, "", ""); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& text : texts) {
    EXPECT_EQ(text.size(), 100u);
    EXPECT_EQ(text, texts[0]);
  }
}

TEST(ChatTemplate, MovesAndParsesRealTemplates) {
  auto chat = ChatTemplate::parse("a");
  chat = ChatTemplate::parse("b");
  const ChatTemplate moved = std::move(chat);
  EXPECT_EQ(moved.render({}), "b");
  const char* shared = std::getenv("SPILLWAY_SHARED");
  const std::filesystem::path folder =
      (shared != nullptr ? std::filesystem::path(shared)
                         : std::filesystem::path(SPILLWAY_SOURCE_DIR) / "../shared") /
      "data/templates";
  if (!std::filesystem::exists(folder)) {
    GTEST_SKIP() << "no collection of real templates (SPILLWAY_SHARED is not set)";
  }
  int rendered = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".jinja") continue;
    SCOPED_TRACE(entry.path().filename().string());
    const auto real = ChatTemplate::parse(read_file(entry.path()));
    ChatTemplateInput input;
    input.messages_json = R"([{"role": "user", "content": "How many?"}])";
    // Some templates are for tools only, one asks for variables of its own.
    input.tools_json = R"([{"type": "function", "function": {"name": "clock", "description": "time",
        "parameters": {"type": "object", "properties": {}, "required": []}}}])";
    input.extra_json = R"({"functions": "none", "datetime": "today"})";
    const std::string text = real.render(input);
    EXPECT_NE(text.find("How many?"), std::string::npos) << text;
    ++rendered;
  }
  EXPECT_GT(rendered, 0);
}

}  // namespace
}  // namespace spillway

// The pre-tokenisers that are known: for each the names that GGUF files give it and its patterns.
// They are facts of the models, published in their tokenizer.json and, where a pattern there had to
// be restated to run in llama.cpp, as restated there (src/llama-vocab.cpp), since ids must equal
// its ids. No code here. \s is Unicode's White_Space, see pretokenize.h.
//
// Two of them, tekken and gpt-4o, are written in another way that matches the same: "a letter that
// is not one of a-z" is the class [^\P{L}a-z], where llama.cpp has a group with a look-ahead; a
// repeated class needs no stack however long the word is.
#include "runtime/token/pretokenize.h"

namespace spillway {
namespace {

// Contractions in either case, as in Llama 3 and Qwen2.
#define SPILLWAY_CONTRACTION "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
// What Llama 3 does after numbers: symbols, line ends, white space.
#define SPILLWAY_REST " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SPILLWAY_REST_SLASH " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SPILLWAY_WORD "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"

constexpr const char* kGpt2 =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)";
constexpr const char* kOneDigit = "\\p{N}";
constexpr const char* kLlama3 =
    SPILLWAY_CONTRACTION "|" SPILLWAY_WORD "|\\p{N}{1,3}|" SPILLWAY_REST;
constexpr const char* kQwen2 = SPILLWAY_CONTRACTION "|" SPILLWAY_WORD "|\\p{N}|" SPILLWAY_REST;
constexpr const char* kQwen35 = SPILLWAY_CONTRACTION
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| "
    "?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
    "\\s+(?!\\S)|\\s+";

// Words in which capitals come first: [optional sign] capitals* small+, or capitals+ small*.
#define SPILLWAY_SIGN "[^\\r\\n\\p{L}\\p{N}]?"
#define SPILLWAY_NOT_SMALL "[^\\P{L}a-z]"
#define SPILLWAY_NOT_CAPITAL "[^\\P{L}A-Z]"
constexpr const char* kTekken =
    SPILLWAY_SIGN SPILLWAY_NOT_SMALL "*" SPILLWAY_NOT_CAPITAL "+|" SPILLWAY_SIGN SPILLWAY_NOT_SMALL
                                     "+" SPILLWAY_NOT_CAPITAL "*|\\p{N}|" SPILLWAY_REST_SLASH;
constexpr const char* kGpt4o = SPILLWAY_SIGN SPILLWAY_NOT_SMALL
    "*" SPILLWAY_NOT_CAPITAL "+(?:" SPILLWAY_CONTRACTION ")?|" SPILLWAY_SIGN SPILLWAY_NOT_SMALL
    "+" SPILLWAY_NOT_CAPITAL "*(?:" SPILLWAY_CONTRACTION ")?|\\p{N}{1,3}|" SPILLWAY_REST_SLASH;

constexpr const char* kLineEnd = "[\\r\\n]";
// U+0800 to U+9FA5 and Hangul, as DeepSeek groups them, but for white space: llama.cpp replaces
// that by an ASCII one before it matches.
constexpr const char* kEastAsian =
    "[\\x{0800}-\\x{167F}\\x{1681}-\\x{1FFF}\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}"
    "\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{9FA5}\\x{AC00}-\\x{D7FF}]+";
constexpr const char* kHanKana = "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+";
constexpr const char* kDeepseekV3 =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
    "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|"
    "\\s+(?!\\S)|\\s+";
// Letters that have case, of the scripts that had it when DeepSeek LLM was made.
constexpr const char* kCasedLetters =
    "\\s?["
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}"
    "\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}"
    "\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}"
    "\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}"
    "\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}"
    "\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}"
    "\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}"
    "\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}"
    "\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}"
    "\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}"
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}"
    "\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}"
    "\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}"
    "\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}"
    "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}"
    "\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}"
    "\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}"
    "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"
    "]+";
constexpr const char* kDeepseekSigns =
    "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3001}\\x{3002}]+";

// "\s+\z", written so that a long run of white space elsewhere is not tried from each of its bytes.
constexpr const char* kSpaceAtEnd = "(?<!\\s)\\s++\\z";

constexpr const char* kBloom =
    " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{0964}\\x{06D4}\\x{060C})]+";

}  // namespace

std::span<const PretokenizerKind> pretokenizer_kinds() {
  static const std::vector<PretokenizerKind> kKinds = {
      {"default", {"[\\p{P}$+<=>^~|]+", kGpt2, "\\p{N}+", "[0-9][0-9][0-9]"}},
      {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2", {kLlama3}, true, true},
      {"dbrx smaug-bpe glm4 chatglm-bpe", {kLlama3}},
      {"qwen2 deepseek-r1-qwen megrez stablelm2 hunyuan grok-2 solar-open kormo", {kQwen2}},
      {"qwen35", {kQwen35}},
      {"gpt-2 phi-2 mpt olmo jais gigachat mellum a.x-4.0 exaone4 trillion granite-docling",
       {kGpt2}},
      {"smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", {kOneDigit, kGpt2}},
      {"falcon", {"[\\p{P}$+<=>^~|`]+", kGpt2, "[0-9][0-9][0-9]"}},
      {"deepseek-llm",
       {kLineEnd, kCasedLetters, kDeepseekSigns, kSpaceAtEnd, kEastAsian, "\\p{N}+"}},
      {"deepseek-coder", {kLineEnd, "\\s?\\p{L}+", "\\s?\\p{P}+", kEastAsian, kOneDigit}},
      {"deepseek-v3 hunyuan-dense joyai-llm", {"\\p{N}{1,3}", kHanKana, kDeepseekV3}},
      {"tekken", {kTekken}, true, true},
      {"gpt-4o llama4 kanana2 minimax-m2", {kGpt4o}},
      {"poro-chat bloom gpt3-finnish", {kBloom}},
      {"viking", {kBloom, kOneDigit}},
      {"bailingmoe bailingmoe2 llada-moe",
       {"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|" SPILLWAY_WORD
        "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
      {"seed-coder",
       {SPILLWAY_CONTRACTION "|" SPILLWAY_WORD
                             "|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
  };
  return kKinds;
}

#undef SPILLWAY_CONTRACTION
#undef SPILLWAY_REST
#undef SPILLWAY_REST_SLASH
#undef SPILLWAY_WORD
#undef SPILLWAY_SIGN
#undef SPILLWAY_NOT_SMALL
#undef SPILLWAY_NOT_CAPITAL

}  // namespace spillway

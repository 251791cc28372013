// The pre-tokenisers that are known: for each the names that GGUF files give it and its patterns.
// They are facts of the models, published in their tokenizer.json and, where a pattern there had to
// be restated to run in llama.cpp, as restated there (src/llama-vocab.cpp), since ids must equal
// its ids. No code here. \s is Unicode's White_Space, see pretokenize.h.
//
// Some are written in another way that matches the same. "A letter that is not one of a-z" is the
// class [^\P{L}a-z], where llama.cpp has a group with a look-ahead; a repeated class needs no stack
// however long the word is. llama.cpp knows no case beyond ASCII: where tokenizer.json parts
// capitals from small letters by category, both are any letter there, and so here.
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
constexpr const char* kQwen2WithoutContractions = SPILLWAY_WORD "|\\p{N}|" SPILLWAY_REST;
constexpr const char* kMiniCpm5 = SPILLWAY_CONTRACTION "|" SPILLWAY_WORD "|\\p{N}+|" SPILLWAY_REST;
// White space in pieces of 512, 256 … 4, 2 and 1.
constexpr const char* kJais2 = SPILLWAY_CONTRACTION
    "|" SPILLWAY_WORD
    "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|"
    "\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|"
    "\\s{1,2}(?!\\S)|\\s";
// Words with single blanks between them are one piece.
constexpr const char* kExaoneMoe = SPILLWAY_CONTRACTION
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}\\p{M}*+(?: ?\\p{L}\\p{M}*+)*+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+";
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

// Letters and marks: what is in no other category.
#define SPILLWAY_MARKED "[^\\p{C}\\p{N}\\p{P}\\p{S}\\p{Z}]"
#define SPILLWAY_MARKED_NOT_SMALL "[^\\p{C}\\p{N}\\p{P}\\p{S}\\p{Z}a-z]"
#define SPILLWAY_MARKED_NOT_CAPITAL "[^\\p{C}\\p{N}\\p{P}\\p{S}\\p{Z}A-Z]"
constexpr const char* kGraniteEmbedding = SPILLWAY_SIGN SPILLWAY_MARKED_NOT_SMALL
    "*" SPILLWAY_MARKED_NOT_CAPITAL "+(?:" SPILLWAY_CONTRACTION
    ")?|" SPILLWAY_SIGN SPILLWAY_MARKED_NOT_SMALL "+" SPILLWAY_MARKED_NOT_CAPITAL
    "*(?:" SPILLWAY_CONTRACTION ")?|\\p{N}{1,3}|" SPILLWAY_REST_SLASH;
constexpr const char* kMarkedWords3 =
    SPILLWAY_SIGN SPILLWAY_MARKED "+(?:" SPILLWAY_CONTRACTION ")?|\\p{N}{1,3}|" SPILLWAY_REST_SLASH;
constexpr const char* kMarkedWords1 =
    SPILLWAY_SIGN SPILLWAY_MARKED "+(?:" SPILLWAY_CONTRACTION ")?|\\p{N}|" SPILLWAY_REST_SLASH;

constexpr const char* kLines = "[^\\n]+|\\n+";
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
constexpr const char* kSpark =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
    "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+|[\\r\\n]|\\s+(?!\\S)|\\s+";
// Han, Hangul, Kana and the scripts of South-East Asia that AFMoE keeps in runs.
constexpr const char* kAfmoeScripts =
    "[\\x{4E00}-\\x{9FFF}\\x{3400}-\\x{4DBF}\\x{8C48}-\\x{FAFF}\\x{3040}-\\x{309F}"
    "\\x{30A0}-\\x{30FF}\\x{FF65}-\\x{FF9F}\\x{2F00}-\\x{2FDF}\\x{E40}-\\x{E7F}\\x{E80}-\\x{EFF}"
    "\\x{1780}-\\x{17FF}\\x{1000}-\\x{109F}\\x{AA60}-\\x{AA7F}\\x{A9E0}-\\x{A9FF}"
    "\\x{AC00}-\\x{D7AF}\\x{1100}-\\x{11FF}]+";
constexpr const char* kYoutuScripts =
    "[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+|"
    "[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}\\x{2018}\\x{2019}\\x{2014}\\x{FF1A}\\x{FF1B}\\x{FF0C}"
    "\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}]+|[\\x{3105}-\\x{312F}]+|"
    "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+";
// Han as Kimi K2 means it: unified and compatibility ideographs of all planes.
#define SPILLWAY_HAN                                                               \
  "\\x{3400}-\\x{4DBF}\\x{4E00}-\\x{9FFF}\\x{F900}-\\x{FAFF}\\x{20000}-\\x{2A6DF}" \
  "\\x{2A700}-\\x{2EBEF}\\x{2F800}-\\x{2FA1F}"
constexpr const char* kKimiK2 = "[" SPILLWAY_HAN "]+|[^\\r\\n\\p{L}\\p{N}]?[^\\P{L}" SPILLWAY_HAN
                                "]+(?:" SPILLWAY_CONTRACTION ")?|\\p{N}{1,3}|" SPILLWAY_REST;
// What Chameleon writes for images, and its white space: line ends, tabs, four or two blanks.
constexpr const char* kChameleonImages = "IMGIMG[A-I]{1,4}Z";
constexpr const char* kChameleonSpace = "[\\t\\n]|    |  ";
constexpr const char* kChameleonSigns = "[\\p{P}!-/:-@\\[-`{-~]";

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
      {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
       {kLlama3},
       true,
       true},
      {"gemma4 granite-embed-multi-311m", {kLines}, false, true, true},
      {"dbrx smaug-bpe chatglm-bpe", {kLlama3}},
      {"glm4 glm5", {kLlama3}, true},
      {"jais-2", {kJais2}},
      {"minicpm5", {"\\p{N}{1,3}", kMiniCpm5}, true},
      {"qwen2 deepseek-r1-qwen megrez stablelm2 hunyuan grok-2 solar-open kormo f2llmv2", {kQwen2}},
      {"ufakzeka", {kQwen2WithoutContractions}},
      {"laguna", {kLines, kQwen2}},
      {"qwen35", {kQwen35}},
      {"gpt-2 phi-2 mpt olmo jais gigachat mellum a.x-4.0 exaone4 trillion granite-docling "
       "modern-bert roberta-bpe jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code",
       {kGpt2}},
      {"smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", {kOneDigit, kGpt2}},
      {"exaone-moe", {kExaoneMoe}},
      {"falcon", {"[\\p{P}$+<=>^~|`]+", kGpt2, "[0-9][0-9][0-9]"}},
      {"deepseek-llm",
       {kLineEnd, kCasedLetters, kDeepseekSigns, kSpaceAtEnd, kEastAsian, "\\p{N}+"}},
      {"deepseek-coder", {kLineEnd, "\\s?\\p{L}+", "\\s?\\p{P}+", kEastAsian, kOneDigit}},
      {"deepseek-v3 hunyuan-dense joyai-llm hy_v4", {"\\p{N}{1,3}", kHanKana, kDeepseekV3}},
      {"spark2_5", {"\\p{N}{1,3}", kHanKana, kSpark, kOneDigit}},
      {"afmoe", {kThreesFromRight, kAfmoeScripts, kDeepseekV3}},
      {"kimi-k2", {kKimiK2}},
      {"youtu", {kYoutuScripts, kMarkedWords1}, true},
      {"tiny_aya cohere2moe", {kThreesFromRight, kMarkedWords3}},
      {"superbpe", {"\\p{N}+", kAsciiThreesFromRight}},
      {"tekken", {kTekken}, true, true},
      {"gpt-4o llama4 kanana2 talkie minimax-m2", {kGpt4o}},
      {"granite-embed-multi-97m", {kGraniteEmbedding}, true},
      {"poro-chat bloom gpt3-finnish", {kBloom}},
      {"viking", {kBloom, kOneDigit}},
      {"chameleon",
       {"<sentinel:[0-9]+>", kChameleonImages, kChameleonSpace, kOneDigit, kChameleonSigns, kGpt2},
       false,
       true},
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
#undef SPILLWAY_MARKED
#undef SPILLWAY_MARKED_NOT_SMALL
#undef SPILLWAY_MARKED_NOT_CAPITAL
#undef SPILLWAY_HAN

}  // namespace spillway

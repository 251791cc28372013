"""Writes small GGUF files, sound or not, with nothing but the standard library.

Called by the tests beside it and by tests/gpu. A third opinion on the format
beside runtime/io and the C++ tests' builder (github.com/ggml-org/ggml, docs/gguf.md). Values are
(type number, bytes); tensors hold their data.
"""

import random
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?",
           U64: "Q", I64: "q", F64: "d"}
Q_F32, Q_F16, Q_Q8_0 = 0, 1, 8


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def encode(kind, value):
    return text(value) if kind == STRING else struct.pack("<" + FORMATS[kind], value)


def scalar(kind, value):
    return kind, encode(kind, value)


def array(kind, values, count=None):
    """count: what the file claims; the truth by default."""
    count = len(values) if count is None else count
    return ARRAY, struct.pack("<IQ", kind, count) + b"".join(encode(kind, v) for v in values)


def nested(depth, count=1):
    return ARRAY, struct.pack("<IQ", ARRAY, count) * depth + struct.pack("<IQ", U8, 0)


def string(value):
    return scalar(STRING, value)


def u32(value):
    return scalar(U32, value)


def f32(value):
    return scalar(F32, value)


class Tensor:
    def __init__(self, name, dims, kind, data):
        self.name, self.dims, self.kind, self.data = name, list(dims), kind, data
        self.offset = None  # where it lies in the data; laid out when None


class File:
    """metadata: list of [key, (type, bytes)]; both lists may be changed into anything."""

    def __init__(self):
        self.magic, self.version, self.alignment = b"GGUF", 3, 32
        self.metadata, self.tensors = [], []
        self.claims = {}  # "tensors", "keys": other counts than the true ones
        self.borders = []  # offsets where a field ends, of the last bytes()

    def set(self, key, value):
        self.metadata = [pair for pair in self.metadata if pair[0] != key]
        if value is not None:
            self.metadata.append([key, value])
        return self

    def tensor(self, name):
        return next(t for t in self.tensors if t.name == name)

    def header(self):
        out = bytearray()
        borders = []

        def put(piece):
            out.extend(piece)
            borders.append(len(out))

        put(self.magic)
        put(struct.pack("<I", self.version))
        put(struct.pack("<Q", self.claims.get("tensors", len(self.tensors))))
        put(struct.pack("<Q", self.claims.get("keys", len(self.metadata))))
        for key, (kind, value) in self.metadata:
            put(text(key))
            put(struct.pack("<I", kind))
            put(value)
        at = 0
        for tensor in self.tensors:
            put(text(tensor.name))
            put(struct.pack("<I", len(tensor.dims)))
            put(struct.pack("<%dQ" % len(tensor.dims), *tensor.dims))
            put(struct.pack("<I", tensor.kind))
            put(struct.pack("<Q", at if tensor.offset is None else tensor.offset))
            at += len(tensor.data) + -len(tensor.data) % self.alignment
        self.borders = borders
        return bytes(out)

    def bytes(self):
        out = bytearray(self.header())
        for tensor in self.tensors:
            out.extend(b"\0" * (-len(out) % self.alignment))
            out.extend(tensor.data)
        return bytes(out)

    def write(self, path):
        with open(path, "wb") as file:
            file.write(self.bytes())
        return path


def matrix(name, rows, cols, kind=Q_Q8_0, seed=1):
    """Random weights of about 1 / sqrt(cols)."""
    generator = random.Random("%s %d" % (name, seed))
    if kind == Q_Q8_0:
        scale = struct.pack("<e", 1 / 64 / cols ** 0.5)
        data = b"".join(scale + generator.randbytes(32) for _ in range(rows * cols // 32))
    else:
        values = [generator.gauss(0, cols ** -0.5) for _ in range(rows * cols)]
        data = struct.pack("<%d%s" % (len(values), "f" if kind == Q_F32 else "e"), *values)
    return Tensor(name, [cols, rows], kind, data)


def vector(name, n, value=1.0):
    return Tensor(name, [n], Q_F32, struct.pack("<%df" % n, *[value] * n))


# <unk>, <s>, </s>, the bytes, and a few letters: a SentencePiece vocabulary that spells anything.
WORDS = (["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)] + ["\u2581"] +
         list("etaoinshr") + ["he"])


def llama(dim=64, ff=96, heads=4, kv_heads=2, head_dim=16, layers=1, kind=Q_Q8_0):
    """A sound model that every verb takes."""
    file = File()
    for key, value in (("block_count", layers), ("embedding_length", dim),
                       ("feed_forward_length", ff), ("context_length", 128),
                       ("attention.head_count", heads), ("attention.head_count_kv", kv_heads),
                       ("attention.key_length", head_dim)):
        file.set("llama." + key, u32(value))
    file.set("general.architecture", string("llama")).set("general.name", string("hostile"))
    file.set("llama.attention.layer_norm_rms_epsilon", f32(1e-5))
    file.set("llama.rope.freq_base", f32(10000.0))
    file.set("tokenizer.ggml.model", string("llama"))
    file.set("tokenizer.ggml.tokens", array(STRING, WORDS))
    file.set("tokenizer.ggml.scores", array(F32, [-float(i) for i in range(len(WORDS))]))
    file.set("tokenizer.ggml.token_type",
             array(I32, [2, 3, 3] + [6] * 256 + [1] * (len(WORDS) - 259)))
    file.set("tokenizer.ggml.bos_token_id", u32(1)).set("tokenizer.ggml.eos_token_id", u32(2))
    file.set("tokenizer.chat_template",
             string("{% for m in messages %}{{ m.content }}{% endfor %}"))
    file.tensors = [matrix("token_embd.weight", len(WORDS), dim, kind),
                    vector("output_norm.weight", dim),
                    matrix("output.weight", len(WORDS), dim, kind)]
    for i in range(layers):
        blk = "blk.%d." % i
        file.tensors += [
            vector(blk + "attn_norm.weight", dim),
            matrix(blk + "attn_q.weight", heads * head_dim, dim, kind),
            matrix(blk + "attn_k.weight", kv_heads * head_dim, dim, kind),
            matrix(blk + "attn_v.weight", kv_heads * head_dim, dim, kind),
            matrix(blk + "attn_output.weight", dim, heads * head_dim, kind),
            vector(blk + "ffn_norm.weight", dim),
            matrix(blk + "ffn_gate.weight", ff, dim, kind),
            matrix(blk + "ffn_up.weight", ff, dim, kind),
            matrix(blk + "ffn_down.weight", dim, ff, kind)]
    return file


def gemma(dim=64, head_dim=16, layers=1, **shape):
    """As llama(), with norms of heads and norms behind both halves of a layer."""
    file = llama(dim=dim, head_dim=head_dim, layers=layers, **shape)
    file.metadata = [[key.replace("llama.", "gemma3.") if key.startswith("llama.") else key, value]
                     for key, value in file.metadata]
    file.set("general.architecture", string("gemma3"))
    file.set("gemma3.attention.sliding_window", u32(64))
    for i in range(layers):
        blk = "blk.%d." % i
        file.tensors += [vector(blk + "attn_q_norm.weight", head_dim),
                         vector(blk + "attn_k_norm.weight", head_dim),
                         vector(blk + "post_attention_norm.weight", dim, 0.5),
                         vector(blk + "post_ffw_norm.weight", dim, 0.5)]
    return file

"""Makes a tiny random language model that behaves: one folder that every engine here can serve.

    python tiny_model.py FOLDER WORDS

Runs in an engine's environment (numpy, tokenizers, safetensors, gguf), without workloom. FOLDER gets the files of a
Hugging Face model and tiny.gguf, the same weights for llama.cpp; WORDS is the file with workloom's words. Equal
versions of the packages give equal bytes.

What makes it fit for tests:

- Its vocabulary holds every word of the tool's texts as one token, with its leading space and without. So N words are
  N tokens, and what the server counts beyond them is its chat template.
- It only ever says whole words with their leading space (or stops), so its answers come back as the same tokens when
  they stand in the next prompt: a cache that works holds all of them.
- After each word it stops with probability STOP, so `ignore_eos` matters; greedy sampling hardly ever stops.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD, FFN = 256, 4, 4, 2, 64, 512
CONTEXT = 32_768
ROPE = 10_000.0
NORM_EPS = 1e-5
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
STOP = 0.02
SPREAD = 2.5
"""Standard deviation of the words' logits."""
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def main(folder: Path, words_file: Path) -> None:
    """Write the model."""
    folder.mkdir(parents=True, exist_ok=True)
    words = words_file.read_text("ascii").split()
    tokenizer = make_tokenizer(words)
    weights = make_weights(tokenizer, words)
    write_hugging_face(folder, tokenizer, weights)
    write_gguf(folder / "tiny.gguf", tokenizer, weights)


def make_tokenizer(words: list[str]) -> Tokenizer:
    """A byte-level BPE trained on the words alone, until each is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1 << 16,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in (PAD, START, END)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    names = [*words, "system", "user", "assistant", "tool"]
    tokenizer.train_from_iterator([f"{name} {name}" for name in names for _ in range(20)], trainer)
    lost = [name for name in names if len(tokenizer.encode(f"{name} {name}").ids) != 2]
    assert not lost, f"not one token: {lost[:5]}"
    return tokenizer


def make_weights(tokenizer: Tokenizer, words: list[str]) -> dict[str, np.ndarray]:
    """Random weights of a Llama, by their Hugging Face names.

    Dimension 0 of every embedding is 4 and no layer writes to it, so it reaches the last norm as nearly the constant c:
    column 0 of the head is a bias of each token's logit.
    """
    draw = np.random.default_rng(0)

    def normal(rows: int, columns: int) -> np.ndarray:
        return (draw.standard_normal((rows, columns)) / math.sqrt(columns)).astype(np.float32)

    size = tokenizer.get_vocab_size()
    ones = np.ones(HIDDEN, np.float32)
    embedding = draw.standard_normal((size, HIDDEN)).astype(np.float32)
    embedding[:, 0] = 4.0
    weights = {"model.embed_tokens.weight": embedding, "model.norm.weight": ones}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        weights[at + "input_layernorm.weight"] = weights[at + "post_attention_layernorm.weight"] = ones
        weights[at + "self_attn.q_proj.weight"] = normal(HEADS * HEAD, HIDDEN)
        weights[at + "self_attn.k_proj.weight"] = normal(KV_HEADS * HEAD, HIDDEN)
        weights[at + "self_attn.v_proj.weight"] = normal(KV_HEADS * HEAD, HIDDEN)
        weights[at + "self_attn.o_proj.weight"] = normal(HIDDEN, HEADS * HEAD)
        weights[at + "mlp.gate_proj.weight"] = normal(FFN, HIDDEN)
        weights[at + "mlp.up_proj.weight"] = normal(FFN, HIDDEN)
        weights[at + "mlp.down_proj.weight"] = normal(HIDDEN, FFN)
        weights[at + "self_attn.o_proj.weight"][0] = weights[at + "mlp.down_proj.weight"][0] = 0.0
    weights["lm_head.weight"] = head(tokenizer, words, draw)
    return weights


def head(tokenizer: Tokenizer, words: list[str], draw: np.random.Generator) -> np.ndarray:
    """The output layer: words alike, the end with probability STOP, nothing else."""
    c = 4 / math.sqrt((16 + 255 * (1 + 0.45 * LAYERS)) / 256)
    weight = draw.standard_normal((tokenizer.get_vocab_size(), HIDDEN)).astype(np.float32)
    weight *= SPREAD / math.sqrt(HIDDEN)
    said = [tokenizer.encode(" " + word).ids[0] for word in words]
    weight[:, 0] = -60 / c
    weight[said, 0] = 0.0
    end = tokenizer.token_to_id(END)
    weight[end] = 0.0
    weight[end, 0] = math.log(STOP / (1 - STOP) * len(said) * math.exp(SPREAD * SPREAD / 2)) / c
    return weight


def write_hugging_face(folder: Path, tokenizer: Tokenizer, weights: dict[str, np.ndarray]) -> None:
    """What `transformers`, vLLM and Dynamo read."""
    ids = {text: tokenizer.token_to_id(text) for text in (PAD, START, END)}
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    files = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": HIDDEN,
            "intermediate_size": FFN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "head_dim": HEAD,
            "hidden_act": "silu",
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": NORM_EPS,
            "rope_theta": ROPE,
            "tie_word_embeddings": False,
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": None,
            "eos_token_id": ids[END],
            "pad_token_id": ids[PAD],
            "torch_dtype": "float32",
        },
        "generation_config.json": {"eos_token_id": ids[END], "pad_token_id": ids[PAD]},
        "special_tokens_map.json": {"eos_token": END, "pad_token": PAD},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": CONTEXT,
            "eos_token": END,
            "pad_token": PAD,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHATML,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1))


def write_gguf(path: Path, tokenizer: Tokenizer, weights: dict[str, np.ndarray]) -> None:
    """What llama.cpp reads."""
    ids = {text: tokenizer.token_to_id(text) for text in (PAD, START, END)}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(ROPE)
    writer.add_layer_norm_rms_eps(NORM_EPS)
    writer.add_vocab_size(tokenizer.get_vocab_size())
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    special = set(ids)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(ids[END])
    writer.add_pad_token_id(ids[PAD])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)
    for name, tensor in weights.items():
        writer.add_tensor(gguf_name(name), gguf_order(name, tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


_GGUF = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor."""
    stem = name.removesuffix(".weight")
    if stem in _GGUF:
        return f"{_GGUF[stem]}.weight"
    layer, rest = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{_GGUF[rest]}.weight"


def gguf_order(name: str, tensor: np.ndarray) -> np.ndarray:
    """Rows of q and k in llama.cpp's order: it rotates neighbours, Hugging Face rotates halves."""
    heads = HEADS if "q_proj" in name else KV_HEADS if "k_proj" in name else 0
    if not heads:
        return tensor
    rows, columns = tensor.shape
    turned = tensor.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2)
    return np.ascontiguousarray(turned.reshape(rows, columns))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

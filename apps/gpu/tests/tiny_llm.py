"""A real, tiny language model behind a real OpenAI-compatible server: llama.cpp's, in this process.

The model is a Llama of two layers with some 120,000 weights drawn from a seeded generator, so it writes
nonsense, but it generates: tokens come one after the other from its own logits.
"""

from pathlib import Path

import gguf
import numpy as np
import xllamacpp

VOCABULARY = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
WIDTH, INNER, HEADS, LAYERS = 64, 128, 4, 2
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def write_model(path: Path, context: int) -> None:
    rng, writer = np.random.default_rng(7), gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(VOCABULARY)
    writer.add_token_scores([0.0] * len(VOCABULARY))
    writer.add_token_types([2, 3, 3] + [6] * 256)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)
    shapes = {"token_embd": (len(VOCABULARY), WIDTH), "output": (len(VOCABULARY), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        block = {f"attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        block |= {"ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}
        block |= {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    for name, shape in shapes.items():
        weights = np.ones(shape) if name.endswith("norm") else rng.normal(0, 0.5, shape)
        if name == "output":
            weights[2] = 0  # never the likeliest: the end comes with max_tokens
        writer.add_tensor(f"{name}.weight", weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def serve(folder: Path, *names: str, context: int = 8192) -> tuple[xllamacpp.Server, str]:
    """-> (the server, which ends with its last reference; the URL up to and with /v1)."""
    write_model(folder / "tiny.gguf", context)
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = str(folder / "tiny.gguf"), context, 1
    params.model_alias, params.port, params.cpuparams.n_threads = set(names), 0, 1
    params.warmup, params.verbosity = False, -1
    server = xllamacpp.Server(params)
    return server, f"{server.listening_address}/v1"

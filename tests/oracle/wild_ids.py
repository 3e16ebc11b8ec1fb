"""Hashes of the ids that the Python libraries give for texts as nobody types them (tests/helpers/wild_text.ts).

    deno run -A tests/oracle/write_wild_texts.ts texts.json
    python tests/oracle/wild_ids.py texts.json tests/fixtures/tokenizers/wild_ids.json

CLIP is transformers' CLIPTokenizer from OpenAI's merge list, T5 and Qwen are run by `tokenizers` from models/tokenizers and from
the qwen3 dump. Nothing is cut.
"""
import gzip, json, sys, tempfile
from pathlib import Path

import tokenizers, transformers
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

ROOT = Path(__file__).resolve().parents[2]


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    lines = gzip.decompress((ROOT / "models/tokenizers/clip/bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode().split("\n")[1:48895]
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(b) for b in order] + [chr(256 + i) for i in range(68)]
    words = symbols + [s + "</w>" for s in symbols] + ["".join(line.split()) for line in lines] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
    return CLIPTokenizer.from_pretrained(str(folder), model_max_length=10**6, pad_token="<|endoftext|>", unk_token="<|endoftext|>")


def ids_hash(ids: list[int]) -> str:
    h = 0x811C9DC5
    for i in ids:
        h = (h ^ (i & 0xFF)) * 0x01000193 & 0xFFFFFFFF
        h = (h ^ (i >> 8 & 0xFF)) * 0x01000193 & 0xFFFFFFFF
    return f"{(h ^ h >> 16) & 0xFFFF:04x}"


def main(source: str, target: str) -> None:
    texts = json.loads(Path(source).read_text(encoding="utf8"))
    t5 = Tokenizer.from_file(str(ROOT / "models/tokenizers/t5/tokenizer.json"))
    qwen = Tokenizer.from_file(str(ROOT / "tests/fixtures/qwen3/tokenizer.json"))
    with tempfile.TemporaryDirectory() as folder:
        clip = clip_tokenizer(Path(folder))
        Path(target).write_text(json.dumps({
            "count": len(texts),
            "libraries": f"tokenizers {tokenizers.__version__}, transformers {transformers.__version__}",
            "clip": "".join(ids_hash(clip(t)["input_ids"]) for t in texts),
            "t5": "".join(ids_hash(t5.encode(t).ids) for t in texts),
            "qwen": "".join(ids_hash(qwen.encode(t).ids) for t in texts),
        }) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

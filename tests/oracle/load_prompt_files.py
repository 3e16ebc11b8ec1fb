"""Reads a folder that `longtail preprocess --format=torch` wrote with torch itself, as SRPO's trainer does.

    python tests/oracle/load_prompt_files.py FOLDER

Prints one line a prompt: caption, shapes, types, and the sums of the numbers.
"""

import json
import sys
from pathlib import Path

import torch

folder = Path(sys.argv[1])
for entry in json.loads((folder / "videos2caption2.json").read_text()):
    tensors = {
        part: torch.load(folder / part / entry[key], weights_only=True, map_location="cpu")
        for part, key in (
            ("prompt_embed", "prompt_embed_path"),
            ("pooled_prompt_embeds", "pooled_prompt_embeds_path"),
            ("text_ids", "text_ids"),
        )
    }
    facts = [f"{part} {tuple(t.shape)} {t.dtype} {t.double().sum():.4f}" for part, t in tensors.items()]
    print(entry["caption"], *facts, sep="; ")

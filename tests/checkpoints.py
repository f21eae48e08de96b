"""Small checkpoints with random weights, in the layout and of the classes of the ones on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = """a an the of on in at with and to from by near under over two three many some one
man woman child people boy girl dog cat bird horse cow sheep elephant bear zebra giraffe
car bus train truck boat plane bicycle street road bridge building house tower window door wall
tree flower grass field forest mountain river lake beach sea sky cloud snow rain sun moon night
table chair bed couch kitchen room plate bowl cup glass bottle fork food pizza cake fruit apple bread
red green blue white black yellow brown gray orange pink small large old young long tall
sitting standing walking running riding holding eating looking playing sleeping flying parked
photo picture painting drawing map sign clock phone book computer screen ball hat shirt umbrella""".split()


def save_blip(folder: Path) -> Path:
    """`BlipForConditionalGeneration`: a ViT and a BERT-like decoder, like Salesforce/blip-image-captioning-base.

    It says only words, and never ends a caption before it must.
    """
    import torch
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = BertTokenizer(vocab=vocabulary)
    size = len(vocabulary)
    text = {
        "vocab_size": size + 2,  # [DEC] and [ENC], which the tokenizer does not know either on the hub
        "bos_token_id": size,
        "sep_token_id": vocabulary["[SEP]"],
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=_VISION))
    _widen(model)
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias[[*range(len(special)), size, size + 1]] = -1e3
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size=_SIZE), tokenizer).save_pretrained(folder)
    return folder


def save_blip2(folder: Path, language: str = "opt") -> Path:
    """`Blip2ForConditionalGeneration`: a ViT, a Q-Former and `opt` or `t5`, like Salesforce/blip2-opt-2.7b.

    It says only words and pieces of words, and never ends a caption before it must.
    """
    import torch
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
        GPT2Tokenizer,
    )

    vocabulary, merges = _byte_pairs(_SPECIAL)
    tokenizer = GPT2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
        add_bos_token=language == "opt",
        add_eos_token=language == "t5",
    )
    queries = 4
    processor = Blip2Processor(BlipImageProcessor(size=_SIZE), tokenizer, num_query_tokens=queries)  # adds <image>
    qformer = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Blip2Config(
        vision_config=_VISION,
        qformer_config=qformer,
        text_config=_language(language, len(processor.tokenizer), vocabulary),
        num_query_tokens=queries,
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = Blip2ForConditionalGeneration(config)
    _widen(model)
    silent = [number for token, number in vocabulary.items() if len(token) == 1 or number < len(_SPECIAL)]
    with torch.no_grad():  # the embeddings are the output weights too
        model.get_input_embeddings().weight[[*silent, config.image_token_index]] = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


CLIP = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
}
"""Of open_clip, with embeddings of 64 numbers."""


def clip(kind: str = "CLIP", **text: object) -> Any:
    """A network of open_clip's class `kind`, whose text tower has these settings too."""
    import open_clip

    model = getattr(open_clip, kind)(**{**CLIP, "text_cfg": {**CLIP["text_cfg"], **text}})
    _widen(model)
    return model.eval()


def save_clip(folder: Path) -> Path:
    """An OpenCLIP folder, `local-dir:FOLDER`, with embeddings of 64 numbers and OpenCLIP's own tokenizer."""
    import open_clip
    from safetensors.torch import save_file

    config = {
        "model_cfg": CLIP,
        "preprocess_cfg": {
            "mean": list(open_clip.OPENAI_DATASET_MEAN),
            "std": list(open_clip.OPENAI_DATASET_STD),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2))
    save_file(clip().state_dict(), folder / "open_clip_model.safetensors")
    return folder


_SPECIAL = ["<s>", "<pad>", "</s>"]
_SIZE = {"height": 32, "width": 32}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}


def _language(kind: str, size: int, vocabulary: dict[str, int]) -> Any:
    from transformers import OPTConfig, T5Config

    if kind == "t5":
        return T5Config(
            vocab_size=size,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            pad_token_id=vocabulary["<pad>"],
            eos_token_id=vocabulary["</s>"],
            decoder_start_token_id=vocabulary["<pad>"],
        )
    return OPTConfig(
        vocab_size=size,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        pad_token_id=vocabulary["<pad>"],
        bos_token_id=vocabulary["</s>"],
        eos_token_id=vocabulary["Ċ"],  # the newline ends a caption of BLIP-2 with OPT
    )


def _byte_pairs(special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level vocabulary, like GPT-2's, and its merges: the special tokens, every byte, then `WORDS`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    return learned["vocab"], [tuple(pair) for pair in learned["merges"]]


def _widen(model: Any, seed: int = 0) -> None:
    """Redraw the weights: as they come, they are so small that every image gives the same answer."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                width = parameter[0].numel()
                parameter.normal_(std=1.5 / min(width, 64) ** 0.5, generator=generator)


def save_internvl(folder: Path) -> Path:
    """`InternVLForConditionalGeneration`: InternViT, pixel shuffle and Qwen2, like OpenGVLab/InternVL3-1B-hf.

    Its processor cuts images into up to 4 tiles and a thumbnail. It says words and pieces of words.
    """
    import torch
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
        PreTrainedTokenizerFast,
    )

    side, patch = 56, 14
    tokens = (side // patch) ** 2 // 4  # one for four patches
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level([*_CHAT, *_PICTURE.values()]),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=_PICTURE,
    )
    tokenizer.chat_template = _CHATML
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = InternVLConfig(
        vision_config={**sizes, "image_size": [side, side], "patch_size": [patch, patch]},
        text_config={
            **sizes,
            "model_type": "qwen2",
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 2048,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": False,
        },
        image_token_id=tokenizer.convert_tokens_to_ids(_PICTURE["context_image_token"]),
        image_seq_length=tokens,
    )
    model = InternVLForConditionalGeneration(config)
    _widen(model)
    silent = [number for token, number in tokenizer.get_vocab().items() if len(token) == 1 or token.startswith("<")]
    with torch.no_grad():
        model.lm_head.weight[silent] = 0
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    pictures = GotOcr2ImageProcessor(
        size={"height": side, "width": side}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    clips = InternVLVideoProcessor(size={"height": side, "width": side})
    processor = InternVLProcessor(pictures, tokenizer, clips, image_seq_length=tokens, chat_template=_CHATML)
    processor.save_pretrained(folder)
    return folder


_CHAT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_PICTURE = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' or part.type == 'image_url' %}<IMG_CONTEXT>\n"
    "{% elif part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _byte_level(special: list[str]) -> Any:
    """A byte-level tokenizer over `WORDS`: every text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([f" {word}" for word in WORDS], trainer)
    return tokenizer

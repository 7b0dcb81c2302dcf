"""Tiny tokenizers and text encoders with random weights, for the pipelines of tiny.py."""

import transformers as t
from tokenizers.pre_tokenizers import ByteLevel


def clip_tokenizer():
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return t.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def t5_tokenizer():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(chr(c), -3.0) for c in range(33, 127)]
    return t.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=77)


def gemma_tokenizer():
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *(chr(c) for c in range(33, 127))]
    return t.GemmaTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[])


def qwen_tokenizer():
    vocabulary = {word: number for number, word in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = t.Qwen2Tokenizer(vocab=vocabulary, merges=[], model_max_length=2048)
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>",
             "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]  # fmt: skip
    tokenizer.add_tokens([t.AddedToken(name, special=True) for name in names])
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    return tokenizer


def clip(cls=t.CLIPTextModel):
    config = t.CLIPTextConfig(
        bos_token_id=512, eos_token_id=513, pad_token_id=513, hidden_size=32,
        intermediate_size=64, num_attention_heads=4, num_hidden_layers=2, vocab_size=514,
        projection_dim=32,
    )  # fmt: skip
    return cls(config).eval()


def t5():
    config = t.T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4,
                        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    return t.T5EncoderModel(config).eval()


def gemma():
    return t.Gemma2Model(t.Gemma2Config(
        head_dim=16, hidden_size=8, intermediate_size=64, num_attention_heads=2,
        num_hidden_layers=1, num_key_value_heads=2, vocab_size=128,
        attn_implementation="eager")).eval()


def qwen_vl():
    return t.Qwen2_5_VLForConditionalGeneration(t.Qwen2_5_VLConfig(
        image_token_id=261, video_token_id=262, vision_start_token_id=259, vision_end_token_id=260,
        text_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                     "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 270,
                     "rope_theta": 1e6, "rope_scaling": {
                         "mrope_section": [1, 1, 2], "rope_type": "default"}},
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16,
                       "num_heads": 2, "out_hidden_size": 16})).eval()


def qwen_processor():
    """Without its part for videos, which needs torchvision."""
    cls = t.Qwen2VLProcessor
    stills = {"__module__": cls.__module__,
              "get_attributes": staticmethod(lambda: ["image_processor", "tokenizer"])}
    return type(cls.__name__, (cls,), stills)(
        image_processor=t.Qwen2VLImageProcessorPil(), tokenizer=qwen_tokenizer())

"""Chat templates with the structure of the published ones; each takes a list of parts or a plain text as content."""


def template(
    turn: str,
    *,
    image: str = "<image>",
    text: str = "part.text",
    end: str,
    start: str = "",
    answer: str,
) -> str:
    """Write a chat template.

    Args:
        turn: Expression for what stands before a message, such as its role.
        image: What an image is in the text.
        text: Expression for a part of text.
        end: What stands after a message.
        start: What stands before all messages, in Jinja.
        answer: What stands before the answer to be generated.
    """
    parts = (
        "{% for part in message.content %}"
        f"{{% if part.type == 'image' %}}{image}{{% else %}}{{{{ {text} }}}}{{% endif %}}"
        "{% endfor %}"
    )
    return (
        f"{start}{{% for message in messages %}}{{{{ {turn} }}}}"
        f"{{% if message.content is string %}}{{{{ message.content }}}}{{% else %}}{parts}{{% endif %}}{end}"
        f"{{% endfor %}}{{% if add_generation_prompt %}}{answer}{{% endif %}}"
    )


# no end token after an answer, as published
VICUNA = template("message.role.upper() + ': '", image="<image>\n", end=" ", answer="ASSISTANT:")
CHAT_ML_TURN = "'<|im_start|>' + message.role + '\n'"
SYSTEM = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
QWEN3_VL = template(
    CHAT_ML_TURN,
    image="<|vision_start|><|image_pad|><|vision_end|>",
    end="<|im_end|>\n",
    answer="<|im_start|>assistant\n",
)
QWEN2_VL = SYSTEM + QWEN3_VL
ONEVISION = template(
    "'<|im_start|>' + message.role + ' '", text="'\n' + part.text", end="<|im_end|>", answer="<|im_start|>assistant\n"
)
INTERNVL = template(CHAT_ML_TURN, image="<IMG_CONTEXT>\n", end="<|im_end|>\n", answer="<|im_start|>assistant\n")
IDEFICS_TURN = "message.role.capitalize() + (':' if message.content[0].type == 'image' else ': ')"
SMOLVLM = template(IDEFICS_TURN, start="<|im_start|>", end="<end_of_utterance>\n", answer="Assistant:")
IDEFICS3 = template(IDEFICS_TURN, start="<|begin_of_text|>", end="<end_of_utterance>\n", answer="Assistant:")
GEMMA3 = template(
    "'<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n'",
    image="<start_of_image>",
    text="part.text | trim",
    start="{{ bos_token }}",
    end="<end_of_turn>\n",
    answer="<start_of_turn>model\n",
)

"""Models: decoders, RoBERTa, LoRA adapters, attention, and the folders that they come in.

Where to look first:

- ``decoder.py``: a Mistral or Llama, ``load_decoder`` and the forward pass.
- ``roberta.py``: a reward model, ``load_roberta`` and its forward pass.
- ``adapters.py`` and ``lora.py``: PEFT folders, and what an adapter computes.
- ``parameters.py``: the table of an architecture's parameters, which everything else follows.
- ``loading.py``: how weights get from safetensors to devices.
- ``logps.py`` and ``completions.py``: how probable a model finds a text.

A base with an adapter, and the log-probabilities of a text's tokens::

    from jaxmodpo.models.adapters import load_adapter
    from jaxmodpo.models.decoder import Decoder, load_decoder

    base = load_decoder(folder, "bfloat16")
    lora, adapter = load_adapter(adapter_folder, base.config, folder)
    arrays = {name: variable[...] for name, variable in base.base.items()}
    policy = Decoder(base.config, arrays, lora, adapter)
    policy.token_logps(tokens_BT)       # [B, T] float32

Names of arrays end in their axes: ``x_BTD`` is an array of batch, time and width. Each file says
which letters it uses.
"""

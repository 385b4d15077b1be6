"""The stages of a run, each a verb: tokenizer, pretrain, midtrain, sft, rl, and what goes around them."""

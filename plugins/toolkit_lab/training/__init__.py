"""How the lab's files are made: rules, policy, corpus, tokenizer, model, SAEs and the measurements
in README.md.
"""

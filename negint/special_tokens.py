"""XLM's special token ids (Lample & Conneau, 2019): what they are, nothing else."""

BOS, EOS, PAD, UNK = 0, 1, 2, 3
SPECIALS = tuple(f"<special{i}>" for i in range(10))
FIRST_SPECIAL = 4
MASK = FIRST_SPECIAL + 1  # XLM masks with its second special
NUM_SPECIALS = FIRST_SPECIAL + len(SPECIALS)

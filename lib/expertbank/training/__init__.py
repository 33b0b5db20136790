"""Everything that needs torch: reading MNIST, training the experts of a bank, checking a bank
against its weights."""

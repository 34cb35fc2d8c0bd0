"""Decoding with the transformer of Go to Zero, in the order of reading:

    generate.py       the public functions, and the plain loop that everything else must agree with
    scheduler.py      prompts waiting and prompts in rows; a row that ends is refilled
    decode_batch.py   the rows on the device and what the host knows of them; one step
    inference.py      prefill, decode and the choice of the best id, over `network.llama`'s only forward
    prompts.py        captions in: text encoded ahead, batches that fit the memory
    running_batch.py  rows that prompts join and leave while they are decoded, as a server needs
    stream.py         one motion without an end in sight, and codes between two motions

Optional reading, what makes it fast and changes nothing: prepare.py swaps modules of a copy (fast_linear.py),
row_groups.py tells attention on CPUs where rows end and row_lengths.py attention on CUDA, int8_argmax.py finds the best
id from 8 bits, cuda_graphs.py launches a step at once.
"""

"""The decode-once store: each file decoded and squashed to one size, as bytes that a loader maps into memory.

The published recipes begin with a squash to 256 x 256 px, the same in every epoch, so a store of squashed pixels is
exact. A folder holds one store: `pixels.npy`, (N, height, width, 3) uint8, and `index.json`, which says of each row
what file it was made from, and is written last: a folder that has it holds a whole store. While a store is built there
are `building.npy` and `journal.jsonl` instead, from which an interrupted build goes on; `.lock` lets one process build.

A store knows its files by their paths relative to their common folder, and by size, time of modification and checksum.
So paths may be relative or absolute, the files may move, be copied or mounted elsewhere together, and a loader may ask
for some of them only; what they must not do is change.

Nothing is decoded twice: a build decodes what it stores, and a pass that decodes all files for another purpose, such as
to check and measure them, fills stores on its way (`build.filling_stores`). Whoever loads from one store more than once
opens it once (`reading.find_store`) and hands it to its loaders.
"""

"""The decode-once store: each file decoded and resized as a recipe begins, as bytes that a loader maps into memory.

What comes before the random steps is the same in every epoch, so a store of it is exact: images squashed to one size,
images with a shorter side of so many pixels, or images as they are. A folder holds one store: `pixels.npy`, uint8, row
after row, and `index.json`, which says of each row what file it was made from and, where they differ, how large it is.
The index is written last: a folder that has it holds a whole store. While a store is built there are `building.npy` and
`journal.jsonl` instead, from which an interrupted build goes on; `.lock` lets one process build.

A row has its place before any is made: `rows.RowPlaces` follows from the headers of the files, so rows are written in
any order, by many threads, and the bytes follow from the files alone.

A store knows its files by their paths relative to their common folder, and by size, time of modification and checksum.
So paths may be relative or absolute, the files may move, be copied or mounted elsewhere together, and a loader may ask
for some of them only; what they must not do is change.

Nothing is decoded twice: a build decodes what it stores, and a pass that decodes all files for another purpose, such as
to check and measure them, fills stores on its way (`build.filling_stores`). Whoever loads from one store more than once
opens it once (`reading.find_store`) and hands it to its loaders.
"""

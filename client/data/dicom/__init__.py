"""DICOM as hospitals have it: folders of files in, stacks and volumes out.

    from client.data.dicom.scan import scan

    stacks, items, findings = scan(folder, index=home / "dicom.json")   # headers only; nothing is changed
    volume = readers.read(stacks[0])                                    # voxels, as of any other file
    volume = readers.read(folder)                                       # of a folder with exactly one volume

`stacks` are images (`volume.Stack`), `items` everything else that is DICOM (`objects.Item`: SEG, RTSTRUCT and what
they refer to), `findings` say what is left out and why. Headers are kept in the file `index` by path, size and
modification time, so that a second scan opens only what has changed; without `index` nothing is kept.

Whatever parses a DICOM file runs in a child process with limits (`workers`), so that a file costs at most itself.
"""

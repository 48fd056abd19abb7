"""Previews of artifacts, made in a sandboxed child process.

`preview_cache` is the side of the service: it opens the bytes, caches previews and replies. `sandbox` starts the
child and limits it from outside; `child` is its main program, `confinement` its limits from inside. `tables`, `texts`,
`pictures` and `contents` read the bytes, in the child only. Formats whose loading can run code are never read.
"""

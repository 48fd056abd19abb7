"""Previews of artifacts, made in a child process that has nothing to lose.

`makers` is the service's side: it finds the bytes, keeps what was made and answers. `sandbox` starts the child and
bounds it from outside; `child` is its main program, `confine` its bounds from inside. `tables`, `texts`, `pictures` and
`contents` read the bytes, in the child only. No format whose loading can run code is read anywhere.
"""

"""Pipelines that are defined in `__main__`: scripts, notebooks and interactive sessions.

Other processes cannot import `__main__`. A script is imported once more, under the name of its file. Of a notebook or a
session the definitions that a pipeline uses are written to a module:

    cells.history()                                 # the inputs so far, as statements
    session_module.write(pipeline, namespace)       # the text of the module
    main_classes.share(module)                      # results have the classes of the session
"""

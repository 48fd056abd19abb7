"""What a builder runs as processes of its own to make a version of a checked out repository.

python -m penstock.git_builds.pack       packs the source; executes nothing of it
python -m penstock.git_builds.compile    imports the pipeline's module in its environment, and compiles it
"""

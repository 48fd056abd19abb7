"""What every service of Penstock is built with.

A service is four files:

- `settings.py`: what it can be told;
- `service.py`: what it does; knows nothing of FastStream;
- `subscribers.py`: the subjects it answers, by FastStream;
- `app.py`: `build(context, settings)`, where it is put together.

`python -m penstock_<name>` runs one of them; `penstock_standalone` runs all in one process. Both use `app.compose`.
"""

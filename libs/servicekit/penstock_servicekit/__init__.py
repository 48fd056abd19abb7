"""The framework of all services of Penstock.

A service is four files:

- `settings.py`: its settings;
- `service.py`: its logic, independent of FastStream;
- `subscribers.py`: its FastStream subscribers;
- `app.py`: `build(context, settings)`, its composition root.

`python -m penstock_<name>` runs one of them; `penstock_standalone` runs all in one process. Both use `app.compose`.
"""

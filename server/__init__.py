"""The REST service: HTTP only, over the public API of vecdb. Nothing imports this package but `vecdb serve` and tests.

app.py        create_app(db, settings): everything below, put together      run.py, __main__.py   serve: granian, uvicorn
settings.py   environment -> Settings        keys.py      API keys          access.py             who may touch what
limits.py     sizes, times, concurrency      problems.py  errors -> answers metrics.py            counters
routes_*.py   thin handlers                  schemas.py   their bodies      bulk.py               NDJSON uploads
documents.py  OpenAPI
"""

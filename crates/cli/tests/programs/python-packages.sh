# Python: a virtual environment, a wheel that is made here and installed with pip, and sqlite3.
# needs: /usr/bin/python3
# module: venv ensurepip

cat >wheel.py <<'PY'
import base64, hashlib, zipfile

files = {
    "greeting/__init__.py": "def main():\n    print('hello from a wheel')\n",
    "greeting-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1.2\n",
    "greeting-1.2.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "greeting-1.2.dist-info/entry_points.txt": "[console_scripts]\ngreet = greeting:main\n",
}
record = "greeting-1.2.dist-info/RECORD"
with zipfile.ZipFile("greeting-1.2-py3-none-any.whl", "w") as wheel:
    lines = []
    for name, text in files.items():
        wheel.writestr(name, text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(text)}\n")
    wheel.writestr(record, "".join(lines) + f"{record},,\n")
PY
/usr/bin/python3 wheel.py
/usr/bin/python3 -m venv environment
. environment/bin/activate
pip install --quiet --no-index --disable-pip-version-check --root-user-action=ignore greeting-1.2-py3-none-any.whl
greet
pip list --format=freeze --disable-pip-version-check | grep greeting
python -c 'import greeting, sys; print(sys.prefix != sys.base_prefix, greeting.__name__)'
pip uninstall --quiet --yes --root-user-action=ignore greeting
python -c 'import greeting' 2>&1 | tail -n 1
deactivate

/usr/bin/python3 - <<'PY'
import sqlite3, threading

with sqlite3.connect("data") as db:
    db.execute("pragma journal_mode=wal")
    db.execute("create table numbers(n)")
    db.executemany("insert into numbers values(?)", ((n,) for n in range(1000)))

def add(n):
    own = sqlite3.connect("data", timeout=30)
    with own:
        own.execute("insert into numbers values(?)", (n,))
    own.close()

crew = [threading.Thread(target=add, args=(n,)) for n in range(8)]
[thread.start() for thread in crew]
[thread.join() for thread in crew]
print(db.execute("select count(*), sum(n) from numbers").fetchone(), db.execute("pragma integrity_check").fetchone())
PY

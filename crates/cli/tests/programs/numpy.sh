# numpy from a wheel, in a virtual environment: products of matrices over several threads, files and mapped arrays.
# needs: python3
# module: venv ensurepip
# mount: WHEELS readlink -e ../../target/wheels/numpy

python3 -m venv env
env/bin/pip install --quiet --no-index --find-links "$WHEELS" numpy
env/bin/python - <<'PYTHON'
import threading
import numpy as np

a = np.arange(250_000, dtype=np.float64).reshape(500, 500) % 7
product = a @ a
print(product.shape, int(product.sum()), int(np.trace(product)))
print(np.round(np.linalg.eigvalsh([[2.0, 1.0], [1.0, 2.0]]), 6))
print(np.allclose(np.linalg.inv(np.eye(50) * 4) * 16, np.eye(50) * 4))
print(np.round(np.abs(np.fft.fft(np.sin(np.arange(64) * np.pi / 8)))[:6], 6))
print(np.random.default_rng(42).integers(0, 100, 5))

np.save("a.npy", a)
print((np.load("a.npy", mmap_mode="r") == a).all())
mapped = np.memmap("m.bin", dtype=np.int32, mode="w+", shape=(1000, 1000))
mapped[:] = np.arange(1000)
mapped.flush()
print(np.fromfile("m.bin", dtype=np.int32).sum())

sums = [0] * 4
def work(i):
    sums[i] = int((a[i::4] @ a).sum())
threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sum(sums) == int(product.sum()))
PYTHON

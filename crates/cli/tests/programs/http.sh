# A web server in Python, with curl as its client.
# needs: /usr/bin/python3 curl

mkdir site; seq 50000 >site/numbers; echo hello >site/index.html
cat >server.py <<'PY'
import functools, http.server

class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory="site"))
with open("port.new", "w") as file:
    file.write(str(server.server_port))
__import__("os").rename("port.new", "port")
server.serve_forever()
PY
/usr/bin/python3 server.py & server=$!
until [ -e port ]; do sleep 0.02; done
url=http://127.0.0.1:$(cat port)
curl -sS "$url/"
curl -sS "$url/numbers" | md5sum
curl -sS -w '%{http_code}\n' -d 'some words' "$url/"
curl -sS -o /dev/null -w '%{http_code} %{size_download}\n' "$url/numbers" "$url/missing"
head -c 3000000 /dev/zero | curl -sS -H Expect: --data-binary @- "$url/" | wc -c
for n in $(seq 8); do curl -sS "$url/numbers" | wc -c & pids+=($!); done; wait "${pids[@]}"
curl -sS -I "$url/index.html" | grep -i '^content-length' | tr -d '\r'
kill $server; wait $server || echo "ended with $?"
curl -sS "$url/" 2>/dev/null || echo "curl $?"

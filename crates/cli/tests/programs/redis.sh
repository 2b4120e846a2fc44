# A Redis server with its client and its benchmark.
# needs: redis-server redis-cli redis-benchmark

redis-server --port 7777 --save '' --dir "$PWD" --logfile log >/dev/null & server=$!
until redis-cli -p 7777 ping >/dev/null 2>&1; do sleep 0.05; done
say() { redis-cli -p 7777 "$@"; }
say set key value; say get key; say incr n; say incrby n 41; say lpush list a b c; say lrange list 0 -1
say hset h field 1; say hgetall h; say zadd z 2 two 1 one; say zrange z 0 -1; say expire key 100; say ttl key | grep -cE '^(99|100)$'
say eval 'return redis.call("get", KEYS[1]) .. "!"' 1 key
(timeout 20 redis-cli -p 7777 subscribe news >news & echo $! >subscriber)
until [ "$(say publish news hello)" = 1 ]; do sleep 0.05; done
until [ "$(wc -l <news)" = 6 ]; do sleep 0.05; done; tail -n 3 news; kill "$(cat subscriber)"
for n in $(seq 100); do echo "set k$n $n"; done | say | sort | uniq -c | tr -s ' '
redis-benchmark -p 7777 -n 1000 -c 10 -q -t set,get | tr '\r' '\n' | grep -c 'requests per second'
say bgsave; until [ "$(say info persistence | grep -c rdb_bgsave_in_progress:0)" = 1 ]; do sleep 0.05; done; say info persistence | grep rdb_last_bgsave_status | tr -d '\r'
say dbsize; say shutdown nosave; wait $server

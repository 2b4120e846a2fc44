# SQLite's shell, with a journal of each kind and two processes at one database.
# needs: sqlite3

for mode in delete wal memory; do
    rm -f data*
    sqlite3 data "pragma journal_mode=$mode; create table t(id integer primary key, name text, value real);
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000)
        insert into t select i, 'name ' || i, i * 0.5 from n; create index by_name on t(name);
        begin; delete from t where id % 2; rollback;
        select count(*), sum(value) from t; select id from t where name = 'name 777'; pragma integrity_check;"
done
rm -f data*; sqlite3 data 'pragma journal_mode=wal; create table log(who text);' >/dev/null
for who in a b c; do
    (for n in $(seq 15); do sqlite3 -cmd '.timeout 20000' data "insert into log values('$who');"; done) &
done
wait
sqlite3 data 'select who, count(*) from log group by who;'
printf 'x,y\n1,2\n3,4\n' >in.csv; sqlite3 :memory: '.mode csv' '.import in.csv c' '.mode json' 'select * from c;'
sqlite3 data .dump | sqlite3 copy; sqlite3 copy 'select count(*) from log;'; sqlite3 data 'vacuum into "packed";'; sqlite3 packed 'pragma quick_check;'
sqlite3 data 'select nonsense;' 2>/dev/null || echo "refused $?"

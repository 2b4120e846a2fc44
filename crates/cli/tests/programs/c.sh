# gcc, g++ and make: a library, a program with threads, a program in C++.
# needs: gcc g++ make ar

cat >sum.c <<'C'
long sum(const long *values, int count) { long all = 0; for (int i = 0; i < count; i++) all += values[i]; return all; }
C
cat >main.c <<'C'
#include <pthread.h>
#include <stdio.h>
long sum(const long *values, int count);
static long values[4][1000];
static void *fill(void *part) { for (int i = 0; i < 1000; i++) ((long *)part)[i] = i; return NULL; }
int main(void)
{
	pthread_t threads[4];
	for (int i = 0; i < 4; i++) if (pthread_create(&threads[i], NULL, fill, values[i])) return 1;
	for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
	printf("%ld\n", sum(values[0], 4000));
	return 0;
}
C
cat >words.cpp <<'C'
#include <future>
#include <iostream>
#include <map>
#include <sstream>
#include <stdexcept>
int main()
{
	std::istringstream text("to be or not to be");
	std::map<std::string, int> count;
	for (std::string word; text >> word;) count[word]++;
	for (const auto &[word, n] : count) std::cout << word << '=' << n << ' ';
	auto later = std::async(std::launch::async, [] { return 6 * 7; });
	try { throw std::runtime_error("thrown"); } catch (const std::exception &e) { std::cout << e.what() << ' '; }
	std::cout << later.get() << '\n';
}
C
cat >Makefile <<'M'
CFLAGS = -O2 -Wall -Werror -fPIC -pthread
all: static shared words
libsum.a: sum.o ; ar rcs $@ $^
libsum.so: sum.o ; gcc -shared -o $@ $^
static: main.o libsum.a ; gcc -pthread -o $@ main.o libsum.a
shared: main.o libsum.so ; gcc -pthread -o $@ main.o -L. -lsum -Wl,-rpath,'$$ORIGIN'
words: words.cpp ; g++ -std=c++17 -O1 -pthread -o $@ $<
M
make -s -j2 all
./static; ./shared; ./words
make all | head -n 1; touch sum.c; make -n | wc -l
gcc -static -x c -o tiny - <<<'#include <stdio.h>
int main(int n, char **w) { return puts(w[n - 1]) < 0; }'
./tiny static
echo 'int main(void) { return *(volatile int *)0; }' >crash.c; gcc -o crash crash.c; { ./crash; } 2>/dev/null || echo "crash $?"
echo 'int main(void) { return x; }' | gcc -x c - 2>errors || grep -c 'undeclared' errors

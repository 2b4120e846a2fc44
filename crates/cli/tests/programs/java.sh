# Java: a program of one file, with threads, files, a process and a socket.
# needs: java
# module-java: jdk.compiler

cat >Main.java <<'JAVA'
import java.io.*;
import java.net.*;
import java.nio.file.*;
import java.util.concurrent.*;
import java.util.stream.*;

public class Main {
    public static void main(String[] words) throws Exception {
        System.out.println(IntStream.rangeClosed(1, 1000).parallel().mapToLong(n -> (long) n * n).sum());
        ExecutorService pool = Executors.newFixedThreadPool(4);
        System.out.println(pool.submit(() -> "from a thread").get());
        Path file = Files.createTempFile("java", ".txt");
        Files.write(file, java.util.List.of("one", "two"));
        System.out.println(Files.readAllLines(file));
        Process process = new ProcessBuilder("sh", "-c", "echo child; exit 3").start();
        System.out.println(new String(process.getInputStream().readAllBytes()).trim() + " " + process.waitFor());
        try (ServerSocket server = new ServerSocket(0, 5, InetAddress.getLoopbackAddress())) {
            pool.submit(() -> {
                try (Socket peer = server.accept()) {
                    peer.getOutputStream().write("over a socket\n".getBytes());
                }
                return null;
            });
            try (Socket socket = new Socket(server.getInetAddress(), server.getLocalPort())) {
                System.out.println(new BufferedReader(new InputStreamReader(socket.getInputStream())).readLine());
            }
        }
        pool.shutdown();
        System.gc();
        try {
            Object nothing = null;
            nothing.hashCode();
        } catch (NullPointerException error) {
            System.out.println("caught");
        }
        System.exit(4);
    }
}
JAVA
java -Xmx256m Main.java || echo "status $?"

// Two kinds of timers in a virtual machine with its compiler and its collector at work: a line a tick.
// usage: java Timers.java PATH
import java.nio.file.*;
import java.util.Timer;
import java.util.TimerTask;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicLong;

public class Timers {
    public static void main(String[] arguments) throws Exception {
        Path path = Path.of(arguments[0]);
        AtomicLong collected = new AtomicLong();
        new Timer(true).schedule(new TimerTask() {
            @Override public void run() {
                System.gc();
                collected.incrementAndGet();
            }
        }, 50, 50);
        ScheduledExecutorService executor = Executors.newScheduledThreadPool(2);
        AtomicLong lines = new AtomicLong();
        ScheduledFuture<?> ticks = executor.scheduleWithFixedDelay(() -> {
            byte[][] garbage = new byte[64][];
            for (int i = 0; i < garbage.length; i++) garbage[i] = new byte[1 << 14];
            String line = lines.getAndIncrement() + " " + garbage.length + "\n";
            try {
                Files.writeString(path, line, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
            } catch (java.io.IOException error) {
                throw new java.io.UncheckedIOException(error);
            }
        }, 20, 20, TimeUnit.MILLISECONDS);
        Path check = Path.of(path + ".check");
        while (!Files.exists(check) && !ticks.isDone()) Thread.sleep(20);
        long before = collected.get();
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
        while (collected.get() == before && System.nanoTime() < end) Thread.sleep(5);
        String verdict = ticks.isDone() ? "the ticks have ended" : collected.get() == before ? "the second timer stands still" : "ok";
        Files.writeString(Path.of(path + ".result"), verdict);
        executor.shutdownNow();
    }
}

// A big heap of which a part is in use: blocks that live long, and garbage, with a line a step.
// usage: java -Xms1g -Xmx2g Heap.java PATH
import java.nio.file.*;
import java.util.Arrays;

public class Heap {
    static final int BLOCK = 1 << 20;

    static byte[] block(int number) {
        byte[] block = new byte[BLOCK];
        Arrays.fill(block, (byte) number);
        return block;
    }

    static boolean isWhole(byte[] block, int number) {
        for (byte found : block) if (found != (byte) number) return false;
        return true;
    }

    public static void main(String[] arguments) throws Exception {
        Path path = Path.of(arguments[0]), check = Path.of(path + ".check");
        byte[][] blocks = new byte[160][];
        for (int i = 0; i < blocks.length; i++) blocks[i] = block(i);
        String verdict = "ok";
        for (int line = 0; !Files.exists(check); line++) {
            int at = line % blocks.length;
            if (!isWhole(blocks[at], at)) verdict = "block " + at + " changed";
            blocks[at] = block(at);
            Files.writeString(path, line + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
            Thread.sleep(20);
        }
        System.gc();
        for (int i = 0; i < blocks.length; i++) if (!isWhole(blocks[i], i)) verdict = "block " + i + " changed";
        Files.writeString(Path.of(path + ".result"), verdict);
    }
}

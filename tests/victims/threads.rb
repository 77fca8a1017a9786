# Threads that hand numbers on through a queue, pipes and a child, a timer beside them; a line for each number that came around.
# usage: ruby threads.rb PATH

path = ARGV[0]

verdict =
  begin
    to_child, from_parent = IO.pipe.reverse
    to_parent, from_child = IO.pipe.reverse
    child = fork do
      to_child.close
      from_child.close
      while (line = from_parent.gets)
        to_parent.puts("#{line.chomp} #{line.to_i * 3}")
      end
      exit!(0)
    end
    from_parent.close
    to_parent.close

    numbers = SizedQueue.new(4)
    makers = 2.times.map { |which| Thread.new { (which..).step(2) { |number| numbers.push([which, number]) } } }
    sender = Thread.new do
      # In order, whichever of the two is faster.
      waiting = {}
      (0..).each do |number|
        until waiting.delete(number)
          _, got = numbers.pop
          waiting[got] = true
        end
        to_child.puts(number)
        sleep(0.02)
      end
    end
    ticks = 0
    ticker = Thread.new { loop { sleep(0.01); ticks += 1 } }

    File.open(path, "a") do |out|
      out.sync = true
      (0..).each do |number|
        line = from_child.gets
        raise "#{line.inspect} came where #{number} belongs" unless line == "#{number} #{number * 3}\n"
        out.puts(number)
        break if File.exist?("#{path}.check")
      end
    end
    [*makers, sender, ticker].each(&:kill).each(&:join)
    to_child.close
    Process.wait(child)
    raise "the child ended so: #{$?}" unless $?.success?
    raise "the timer never ran" if ticks.zero?
    "ok"
  rescue StandardError => error
    error.inspect
  end
File.write("#{path}.result.new", verdict)
File.rename("#{path}.result.new", "#{path}.result")

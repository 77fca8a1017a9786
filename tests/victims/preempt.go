// Goroutines that compute and call nothing, so that only signals preempt them, beside timers, channels and the garbage
// collector: a line a tick.
// usage: preempt PATH
package main

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

const spinners = 4

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func main() {
	path := os.Args[1]
	// Fewer than there are goroutines that never give way.
	runtime.GOMAXPROCS(2)
	var spins [spinners]uint64
	for i := range spins {
		go func(own *uint64) {
			for {
				atomic.AddUint64(own, 1)
			}
		}(&spins[i])
	}
	slept := make(chan int)
	go func() {
		for n := 0; ; n++ {
			time.Sleep(5 * time.Millisecond)
			slept <- n
		}
	}()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0600)
	must(err)
	ticker := time.NewTicker(20 * time.Millisecond)
	for n := range slept {
		<-ticker.C
		garbage := make([][]byte, 64)
		for i := range garbage {
			garbage[i] = make([]byte, 1<<14)
		}
		_, err := fmt.Fprintf(out, "%d %d\n", n, len(garbage))
		must(err)
		if exists(path + ".check") {
			break
		}
	}
	verdict := "ok"
	for i := range spins {
		before := atomic.LoadUint64(&spins[i])
		for end := time.Now().Add(20 * time.Second); atomic.LoadUint64(&spins[i]) == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				verdict = fmt.Sprintf("goroutine %d stands still", i)
				break
			}
		}
	}
	must(os.WriteFile(path+".result", []byte(verdict), 0600))
}

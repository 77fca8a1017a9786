#!/usr/bin/perl
# A counter with a hash, an open file, an alarm handler and a sleep in progress.
# usage: counter.pl PATH
use strict;
use warnings;
use IO::Handle;
use Time::HiRes qw(sleep setitimer ITIMER_REAL);

my $path = shift or die "usage: counter.pl PATH\n";
my %seen;
my $alarms = 0;
$SIG{ALRM} = sub { $alarms++ };
setitimer(ITIMER_REAL, 0.05, 0.05);
open(my $out, '>>', $path) or die "$path: $!\n";
$out->autoflush(1);
my $n = 0;
until (-e "$path.check") {
    $seen{$n} = $alarms;
    print $out "$n $alarms\n";
    $n++;
    sleep(0.03);
}
my $failure = '';
$failure = 'the hash has ' . keys(%seen) . " entries and not $n" if keys(%seen) != $n;
$failure = 'no alarm came' if $alarms == 0;
open(my $result, '>', "$path.result") or die "$path.result: $!\n";
print $result $failure || 'ok';
close($result);
exit($failure ? 1 : 0);

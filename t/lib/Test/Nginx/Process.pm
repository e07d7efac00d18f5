package Test::Nginx::Process;

# Processes: starting them, seeing them in /proc, and ending those that the
# harness started.  Times are seconds of now(), a monotonic clock that all
# processes of a machine share.
#
#   now()                      seconds, fractional
#   wait_until($code, $limit)  polls until $code returns true; returns that
#                              value, or nothing after $limit seconds
#   spawn(%how)                pid; run => sub, or exec => [argv],
#                              out => file for stdout and stderr,
#                              group => 1 for a process group of its own,
#                              env => {variables to set},
#                              keep => [handles that the child may use],
#                              seconds => life-time limit of a child
#   alive($pid)                true while it runs (a zombie does not)
#   children($pid)             hash reference: pid -> process title
#   group($pid)                pids of its process group, leader included
#   end_process($pid, %how)    signals => [[TERM => 5], [KILL => 5]]; ends and
#                              reaps a child; returns the name of the signal
#                              that was enough, '' if it was gone, undef if it
#                              still runs

use v5.36;

use Config;
use Exporter qw/import/;
use POSIX qw/WNOHANG _exit setpgid/;
use Time::HiRes qw/clock_gettime CLOCK_MONOTONIC/;

our @EXPORT_OK
	= qw/now wait_until spawn alive children group end_process reap/;

my %status;

sub now () { return clock_gettime(CLOCK_MONOTONIC) }

sub wait_until ($code, $limit) {
	my $deadline = now() + $limit;
	my $pause = 0.002;

	while (1) {
		my $got = $code->();
		return $got if $got;
		return if now() >= $deadline;

		# Eager at first, since most conditions hold at once; then lazy, to
		# leave the processor to what is being waited for.
		select undef, undef, undef, $pause;
		$pause *= 1.5 if $pause < 0.05;
	}
}

sub spawn (%how) {
	# A copy of unwritten output must not be written by the child too.
	STDOUT->flush();
	STDERR->flush();

	my $pid = fork() // die "fork failed: $!\n";

	if ($pid) {
		# Numbers come round again.
		delete $status{$pid};
		return $pid;
	}

	$SIG{$_} = 'DEFAULT' for qw/ALRM HUP INT PIPE TERM/;
	setpgid(0, 0) if $how{group};
	_die_with_parent();
	alarm int($how{seconds} + 1) if $how{seconds};

	if (defined $how{out}) {
		open STDOUT, '>>', $how{out} or _exit(127);
		open STDERR, '>&', \*STDOUT or _exit(127);
	}

	if ($how{exec}) {
		my $env = $how{env} // {};
		@ENV{ keys %$env } = values %$env;
		no warnings 'exec';
		exec { $how{exec}[0] } @{ $how{exec} };
		print STDERR "cannot run \"$how{exec}[0]\": $!\n";
		_exit(127);
	}

	# A socket that the child holds as well would stay open when the test
	# closes it.
	_close_sockets(map { fileno $_ } @{ $how{keep} // [] });

	my $ok = eval { $how{run}->(); 1 };
	print STDERR "child process failed: $@" unless $ok;
	STDOUT->flush();
	_exit($ok ? 0 : 1);
}

sub alive ($pid) {
	reap($pid);
	my $stat = _stat($pid);
	return $stat && $stat->{state} !~ /[ZX]/;
}

# Collects the exit status of a child, if there is one; keeps it for later.
sub reap ($pid) {
	# Also called at the end of a test, whose exit status is not ours to change.
	local ($?, $!);

	my $got = waitpid $pid, WNOHANG;
	$status{$pid} = $? if $got == $pid;

	return $status{$pid};
}

sub children ($parent) {
	my %found;

	for my $pid (_pids()) {
		my $stat = _stat($pid) or next;
		next unless $stat->{ppid} == $parent && $stat->{state} !~ /[ZX]/;

		open my $fh, '<', "/proc/$pid/cmdline" or next;
		my $title = do { local $/; <$fh> } // '';
		$title =~ tr/\0/ /;
		$found{$pid} = $title =~ s/ +\z//r;
	}

	return \%found;
}

sub group ($leader) {
	my @pids = grep {
		my $stat = _stat($_);
		$stat && $stat->{group} == $leader && $stat->{state} !~ /[ZX]/;
	} _pids();

	return @pids;
}

sub end_process ($pid, %how) {
	return '' unless alive($pid);

	my $steps = $how{signals} // [ [ TERM => 5 ], [ KILL => 5 ] ];

	for my $step (@$steps) {
		my ($signal, $limit) = @$step;
		kill $signal, $pid;
		return $signal if wait_until(sub { !alive($pid) }, $limit);
	}

	return undef;
}

sub _pids () {
	opendir my $dir, '/proc' or die "cannot read /proc: $!\n";
	return grep { /\A\d+\z/ } readdir $dir;
}

sub _stat ($pid) {
	open my $fh, '<', "/proc/$pid/stat" or return;
	my $line = <$fh> // return;

	# The command's name may hold blanks and brackets: go by the last one.
	my ($state, $ppid, $group) = $line =~ /\) (\S) (\d+) (-?\d+) [^)]*\z/
		or return;

	return { state => $state, ppid => $ppid, group => $group };
}

# A test that is killed outright cannot clean up: let the kernel do it.
# prctl(PR_SET_PDEATHSIG, SIGTERM); elsewhere than on these machines a killed
# test leaves its processes behind.
sub _die_with_parent () {
	my ($number) = $Config{archname} =~ /x86_64/ ? 157
		: $Config{archname} =~ /aarch64/ ? 167 : return;
	syscall $number, 1, 15, 0, 0, 0;
}

sub _close_sockets (@keep) {
	my %keep = map { $_ => 1 } @keep;

	opendir my $dir, '/proc/self/fd' or return;

	for my $fd (grep { /\A\d+\z/ && $_ > 2 } readdir $dir) {
		next if $keep{$fd};
		my $to = readlink "/proc/self/fd/$fd" // next;
		POSIX::close($fd) if $to =~ /\Asocket:/;
	}
}

1;

package Test::Nginx::Server;

# The running side of an instance: nginx's processes.  (Base of Test::Nginx.)
#
#   run              starts nginx; returns when it listens and all workers of
#                    its configuration are up; dies with the log if not
#   reload(%opt)     HUP; returns true when all new workers are up and no old
#                    one accepts connections any more; with old_gone => 1, when
#                    the old ones have ended; seconds => 10 to wait, else
#                    dies.  A configuration that nginx refuses: returns false
#                    (and the [emerg] line has to be allowed with allow_log)
#   recover          HUP when a worker died with a lock of nginx's own: the old
#                    ones that wait for it do not end, and are killed.  Returns
#                    how many, once new workers serve; dies if they do not
#   stop(%opt)       QUIT, then TERM, then KILL; returns the signal that was
#                    enough; needing more than QUIT within seconds => 10 is a
#                    failure at the end of the file, unless slow => 1.
#                    Leak keys are checked first; leaks => 0 leaves them out
#   signal($name)    to the master; does not wait.  After one that replaces or
#                    ends workers, these are not watched until the next of the
#                    calls above or kill_worker
#   pid              of the master
#   workers          pids of workers that serve, ascending
#   old_workers      pids of workers that are shutting down, ascending
#   kill_worker($pid, $signal)  KILL by default; returns when it is gone and
#                    another serves in its place; that death is then expected.
#                    Without $pid, the first worker
#   sanitizer_options  environment for nginx, so that reports of sanitizers
#                    are found at the end
#   expect_exit($pid)  a worker that will end otherwise, not by the harness

use v5.36;

use POSIX ();

use Test::Nginx::Process
	qw/wait_until spawn alive reap children group end_process/;

# State that Test::Nginx starts with: the running master; every master ever
# started, each leader of a group; workers that are to be there.
sub initial () { return (master => undef, masters => [], serving => []) }

use constant START => 15;

sub run ($self) {
	my $dir = $self->{dir};

	die "nginx is running already\n" if $self->{master};
	die "nginx.conf lacks %%TEST_GLOBALS%%\n"
		unless $self->read_file('nginx.conf') =~ /^\s*daemon off;/m;

	unlink "$dir/nginx.pid";
	my $pid = spawn(
		group => 1, out => "$dir/start.log", env => $self->sanitizer_options(),
		exec => [
			$self->{binary}->path(), '-p', "$dir/", '-c', 'nginx.conf',
			'-e', 'error.log',
		],
	);

	$self->{master} = $pid;
	push @{ $self->{masters} }, $pid;

	# nginx writes this file when its sockets listen.
	my $up = wait_until(sub {
		return 1 if !alive($pid);
		return -s "$dir/nginx.pid" && $self->_all_serve();
	}, START);

	if (!$up || !alive($pid)) {
		end_process($pid);
		$self->{master} = undef;
		die "nginx did not start:\n", $self->read_file('start.log'),
			$self->log->tail(), "\n";
	}

	$self->{serving} = [ $self->workers() ];
	$self->leak_baseline() if $self->{leaks};

	return $self;
}

sub pid ($self) { return $self->{master} }

sub signal ($self, $name) {
	$self->_note_deaths();

	# From here on workers may come and go.
	$self->{serving} = [] if $name =~ /\A(?:HUP|INT|QUIT|TERM|USR2|WINCH)\z/;

	kill $name, $self->{master} // die "nginx is not running\n";
}

sub workers ($self) {
	return $self->_workers(qr/\Anginx: worker process\z/);
}

sub old_workers ($self) {
	return $self->_workers(qr/\Anginx: worker process is shutting down\z/);
}

sub reload ($self, %opt) {
	my $seconds = $opt{seconds} // 10;
	my $mark = $self->log_mark();
	my %old = map { $_ => 1 } $self->workers(), $self->old_workers();
	my $refused = 0;

	$self->signal('HUP');

	wait_until(sub {
		return 1 if $refused = $self->grep_log(
			qr/ \[emerg\] $self->{master}#/, $mark,
		);

		# Both at once: a worker that still serves is not a new one.
		my @serving = $self->workers();
		return 0 if grep { $old{$_} } @serving;
		return 0 unless @serving == $self->_wanted_workers();
		return !$opt{old_gone} || !$self->old_workers();
	}, $seconds) or die "reload: "
		. ($self->old_workers() && $opt{old_gone}
			? 'old workers do not end' : 'no new workers')
		. " after $seconds s:\n" . $self->log->tail() . "\n";

	$self->{serving} = [ $self->workers() ];

	return !$refused;
}

sub recover ($self) {
	my $master = $self->{master};
	my %old = %{ children($master) };
	my $left = sub { return grep { alive($_) } keys %old };

	$self->signal('HUP');
	wait_until(sub {
		$self->_wanted_workers() == grep { !$old{$_} } $self->workers();
	}, 15) or die "recover: no new workers:\n" . $self->log->tail() . "\n";
	wait_until(sub { !$left->() }, 2);

	# One may wait before it has the name of a worker.
	my @stuck = $left->();
	$self->expect_exit($_) for @stuck;
	$self->{serving} = [];
	kill KILL => @stuck if @stuck;
	wait_until(sub { !$left->() }, 5) or die "recover: processes are left\n";
	$self->{serving} = [ $self->workers() ];

	return scalar @stuck;
}

sub stop ($self, %opt) {
	my $pid = $self->{master} // return '';
	my $seconds = $opt{seconds} // 10;
	my $problems = $self->{problems};

	if (!alive($pid)) {
		push @{ $problems->{deaths} }, "master $pid is gone";
	}
	else {
		# With its workers dead, nginx would not answer for the leaks.
		$self->_note_deaths();
		push @{ $problems->{leaks} }, $self->{leaks}->problems()
			if $self->{leaks} && ($opt{leaks} // 1);
	}

	# Those whose client has gone away end when their backend does.
	$self->stop_daemons() if $opt{daemons};

	my $used = end_process($pid, signals => [
		[ QUIT => $seconds ], [ TERM => 5 ], [ KILL => 5 ],
	]) // 'nothing';

	push @{ $problems->{processes} },
		"nginx did not end within $seconds s of QUIT, but by $used: "
		. 'something held a worker'
		if $used ne 'QUIT' && $used ne '' && !$opt{slow};

	my $status = reap($pid);
	push @{ $problems->{deaths} },
		"master $pid ended with status $status"
		if $status && ($used eq 'QUIT' || $used eq '');

	# Workers outlive a master that was killed.
	wait_until(sub { !group($pid) }, 0.5);

	for my $left (group($pid)) {
		push @{ $problems->{processes} }, "process $left outlived its master"
			unless $opt{slow};
		end_process($left);
	}

	@$self{qw/master serving/} = (undef, []);

	return $used;
}

sub kill_worker ($self, $pid = undef, $signal = 'KILL') {
	$pid //= ($self->workers())[0] // die "no worker to kill\n";
	die "$pid is not a worker\n"
		unless grep { $_ == $pid } $self->workers(), $self->old_workers();

	$self->expect_exit($pid);
	kill $signal, $pid;

	wait_until(sub { !alive($pid) && $self->_all_serve() }, 10)
		or die "worker $pid was not replaced:\n" . $self->log->tail() . "\n";

	$self->{serving} = [ $self->workers() ];

	return @{ $self->{serving} };
}

sub expect_exit ($self, $pid) {
	$self->_note_deaths();
	$self->allow_log(qr/process $pid exited (?:on signal|with (?:fatal )?code)/);
	$self->{serving} = [ grep { $_ != $pid } @{ $self->{serving} } ];
}

sub _workers ($self, $title) {
	my $children = $self->{master} ? children($self->{master}) : {};

	# In an array, for callers that want their number.
	my @pids = sort { $a <=> $b }
		grep { $children->{$_} =~ $title } keys %$children;

	return @pids;
}

sub _all_serve ($self) {
	return $self->workers() == $self->_wanted_workers();
}

# As the configuration says; a process title alone does not tell how many more
# are to come.
sub _wanted_workers ($self) {
	my $conf = $self->read_file('nginx.conf');

	return 0 if $conf =~ /^\s*master_process\s+off;/m;
	my ($n) = $conf =~ /^\s*worker_processes\s+(\w+);/m or return 1;

	# 84 is _SC_NPROCESSORS_ONLN, which POSIX.pm does not name.
	return $n eq 'auto' ? POSIX::sysconf(84) : $n;
}

# Workers that were there, and that nobody asked to go, are still there.
sub _note_deaths ($self) {
	push @{ $self->{problems}{deaths} },
		map { "worker $_ is gone" }
		grep { !alive($_) } @{ $self->{serving} };

	$self->{serving} = [ $self->workers() ];
}

# Sanitizers write their reports into the directory of the test.
sub sanitizer_options ($self) {
	return { map {
		my $given = $ENV{$_} // '';
		$_ => join ':', grep { length } $given, "log_path=$self->{dir}/sanitizer";
	} qw/ASAN_OPTIONS TSAN_OPTIONS UBSAN_OPTIONS/ };
}

1;

package Bench::Session;

# One run of the benchmark: what is measured, where, and when.
#
#   new(root => $dir, null => 0)  dies when something is missing
#   null               true when the module is left out of both sides
#   dir                temporary directory
#   keep($file, $as)   copies a file into build/bench
#   nginx(%how)        a Test::Nginx, not yet running: module => 1 for the one
#                      with the module, or the path of another build of it;
#                      conf => text, with the holes of Test::Nginx and those of
#                      holes => {}; log_level => 'error'; binary => another
#                      program to start; modules => what it must have
#   debian             path of the module for Debian's nginx; undef for none
#   start($nginx), stop($nginx)  the latter dies when nginx logged an error
#   cpu($pid)          nanoseconds that the process has had a processor for
#   calm               waits for other programs to leave the processors alone,
#                      as long as there is patience left for this row
#   binary             path of nginx
#   facts              [ name => value ] of the machine, for the report
#   begin($row), end   around each row

use v5.36;

use Cwd qw/abs_path/;
use File::Copy qw/copy/;
use File::Path qw/make_path/;
use File::Temp qw/tempdir/;
use POSIX qw/strftime/;

use Test::Nginx;

# Of one measurement to the next; a run that hangs ends.
use constant LIMIT => 300;

# Of a row, for other programs to end, in seconds.
use constant PATIENCE => 20;

# Part of the processor time that is unused when nothing else runs.
use constant IDLE => 0.9;

use constant MODULE => 'ngx_http_upstream_control_module.so';

sub new ($class, %opt) {
	my $root = abs_path($opt{root});
	my $dir = tempdir('nginx-bench-XXXXXXXXXX', TMPDIR => 1, CLEANUP => 1);

	my $self = bless {
		%opt, root => $root, dir => $dir, began => time, loads => [],
		binary => $ENV{BENCH_BINARY} || "$root/build/nginx-1.28/nginx",
	}, $class;

	# A build meanwhile must not change what is measured.
	my $module = $ENV{BENCH_MODULE} || "$root/build/nginx-1.28/" . MODULE;
	copy($module, "$dir/" . MODULE)
		or die "cannot copy \"$module\": $!; make build makes it\n";

	# The same for what is built for Debian, if it is.
	my $debian = "$root/build/debian/" . MODULE;
	if (-e $debian) {
		make_path("$dir/debian");
		copy($debian, "$dir/debian/" . MODULE)
			or die "cannot copy \"$debian\": $!\n";
		$self->{debian} = "$dir/debian/" . MODULE;
	}

	$self->{start_load} = _load();

	return $self;
}

sub null ($self) { return $self->{null} }

sub dir ($self) { return $self->{dir} }

sub binary ($self) { return $self->{binary} }

sub debian ($self) { return $self->{debian} }

sub keep ($self, $file, $as) {
	make_path("$self->{root}/build/bench");
	copy($file, "$self->{root}/build/bench/$as")
		or die "cannot copy \"$file\": $!\n";
}

sub nginx ($self, %how) {
	local $ENV{TEST_NGINX_BINARY} = $how{binary} // $self->{binary};
	my $module = $how{module} // 0;
	local $ENV{TEST_NGINX_MODULE} = !$module || $self->{null} ? undef
		: $module eq '1' ? "$self->{dir}/" . MODULE : $module;

	my $t = Test::Nginx->new(
		timeout => LIMIT, log_level => $how{log_level} // 'error',
	);
	$t->has(@{ $how{modules} // [] });

	return $t->write_file_expand('nginx.conf', $how{conf},
		%{ $how{holes} // {} });
}

sub start ($self, @nginx) { $_->run() for @nginx }

sub stop ($self, @nginx) {
	for my $t (@nginx) {
		$t->stop();
		my @lines = $t->grep_log(qr/ \[(?:error|crit|alert|emerg)\] /);
		die "nginx has logged errors:\n$lines[0]\n" if @lines;
	}
}

sub cpu ($self, $pid) {
	# A process that is about to sleep is not yet charged for its last steps.
	select undef, undef, undef, 0.003;

	open my $fh, '<', "/proc/$pid/schedstat"
		or die "cannot read the times of process $pid: $!\n";

	return (split ' ', <$fh>)[0];
}

sub calm ($self) {
	while ($self->{patience} > 0) {
		my @before = _idle();
		select undef, undef, undef, 0.2;
		my @after = _idle();

		my $all = $after[1] - $before[1];
		return if $all > 0 && ($after[0] - $before[0]) / $all >= IDLE;
		$self->{patience} -= 0.2;
	}
}

# Processor time of the machine so far, in ticks: unused, and all.
sub _idle () {
	my ($user, $nice, $system, $idle, $wait, @more)
		= _slurp('/proc/stat') =~ /^cpu +(.*)/ ? split ' ', $1 : ();
	my $all = 0;
	$all += $_ for $user, $nice, $system, $idle, $wait, @more[0 .. 2];

	return ($idle + $wait, $all);
}

sub begin ($self, $row) {
	alarm LIMIT;
	print "$row\n";
	$self->{row_began} = time;
	$self->{patience} = PATIENCE;
}

sub end ($self) {
	my $load = _load();
	push @{ $self->{loads} }, $load;
	printf "  %d s, load average %s\n", time - $self->{row_began}, $load;
}

sub facts ($self) {
	my ($model) = _slurp('/proc/cpuinfo') =~ /^model name\s*:\s*(.+)$/m;
	my $cores = () = _slurp('/proc/cpuinfo') =~ /^processor\s*:/mg;
	my ($kib) = _slurp('/proc/meminfo') =~ /^MemTotal:\s*(\d+)/m;
	my ($os) = _slurp('/etc/os-release') =~ /^PRETTY_NAME="?([^"\n]+)/m;
	my ($sys, $release) = (POSIX::uname())[0, 2];
	my $nginx = qx{'$self->{binary}' -V 2>&1};
	my ($version) = $nginx =~ /^nginx version: (\S+)/m;
	my $debug = $nginx =~ /--with-debug/ ? ', built with --with-debug' : '';
	my ($wrk) = qx{wrk -v 2>&1} =~ /\A(wrk \S+)/;
	my ($valgrind) = qx{valgrind --version 2>&1} =~ /\A(valgrind-\S+)/;

	return (
		[ 'date' => strftime('%Y-%m-%d %H:%M UTC', gmtime $self->{began}) ],
		[ 'machine' => sprintf '%d cores, %s, %.1f GiB', $cores,
			$model // 'unknown processor', $kib / 1024 / 1024 ],
		[ 'system' => ($os // 'unknown') . ", $sys $release" ],
		[ 'nginx' => $version . $debug ],
		[ 'tools' => join ', ', grep { defined } $wrk, $valgrind ],
		[ 'load average' => "$self->{start_load} before, "
			. join(', ', @{ $self->{loads} }) . ' after each row (1 minute; '
			. 'what the benchmark causes itself is part of it)' ],
		[ 'duration' => time - $self->{began} . ' s' ],
	);
}

sub _load () { return (split ' ', _slurp('/proc/loadavg'))[0] }

sub _slurp ($file) {
	open my $fh, '<', $file or return '';
	local $/;
	return scalar <$fh>;
}

1;

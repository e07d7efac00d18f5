package Test::Nginx::Verdict;

# The assertions that every test file ends on, for all its instances together:
#
#   1  no line of level alert, emerg or crit in the error log
#   2  no worker died
#   3  no sanitizer report, no panic
#   4  nginx ended when asked to, and no process is left
#   5  the leak keys hold (skipped unless leak_keys() was called)
#
#   COUNT            how many they are
#   watch($t)        an instance takes part
#   planned()        the plan has been made: the assertions are due
#   conclude()       makes them, once; done by itself at the end of the file
#   deadline($secs)  ends the whole file, with a failure, after that time

use v5.36;

use POSIX qw/_exit/;
use Test::More ();

use Test::Nginx::Process qw/alive/;

use constant COUNT => 5;

# For stopping everything after the test's own time is over.
use constant CLEAN_UP => 60;

my $owner = $$;
my $planned = 0;
my $done = 0;
my @instances;

sub watch ($t) { push @instances, $t }

sub planned () { $planned = 1 }

sub deadline ($seconds) {
	$SIG{ALRM} = sub {
		Test::More::diag("timed out after $seconds seconds");
		exit 124;
	};
	alarm $seconds;

	# Perl runs no END blocks on these.
	$SIG{$_} //= sub { exit 130 } for qw/HUP INT TERM/;
}

sub conclude () {
	return if $done++;

	my %problems = map { $_ => [] } qw/log deaths panics processes leaks/;

	for my $t (@instances) {
		my $found = $t->conclude();
		push @{ $problems{$_} }, @{ $found->{$_} } for keys %$found;
	}

	return unless $planned;

	_none('no alert, emerg or crit in the error log', @{ $problems{log} });
	_none('no worker died', @{ $problems{deaths} });
	_none('no sanitizer report, no panic', @{ $problems{panics} });
	_none('nginx ended, no process left', @{ $problems{processes} });

	if (grep { $_->{leaks} } @instances) {
		_none('leak keys', @{ $problems{leaks} });
	}
	else {
		SKIP: { Test::More::skip('no leak keys declared', 1) }
	}

	return if Test::More->builder()->is_passing();

	for my $t (@instances) {
		my $tail = $t->log->tail();
		Test::More::diag("end of the error log:\n$tail") if $tail ne '';
	}
}

sub _none ($name, @problems) {
	my $ok = Test::More::ok(!@problems, $name);
	return if $ok;

	my $more = @problems - 20;
	splice @problems, 20 if $more > 0;
	Test::More::diag("  $_") for @problems;
	Test::More::diag("  and $more more") if $more > 0;
}

# Test::More is loaded above, so its own END block runs after this one and
# counts what is asserted here.
END {
	if ($$ == $owner) {
		my $status = $?;

		$SIG{ALRM} = sub {
			print STDERR "clean-up timed out\n";
			kill KILL => $_->pids() for @instances;
			_exit(125);
		};
		alarm CLEAN_UP;

		eval { conclude(); 1 } or do {
			Test::More::diag("clean-up failed: $@");
			$status ||= 1;
		};

		alarm 0;
		$? = $status;
	}
}

1;
